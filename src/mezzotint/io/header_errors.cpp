#include <array>

#include "mezzotint/io/header.h"

namespace mezzotint::io {
namespace {

constexpr HeaderError kErrors[] = {
    {HeaderFault::file_too_short, "file-too-short", "The file is shorter than the 8 bytes of the header length."},
    {HeaderFault::length_zero, "header-length-zero", "The header length is zero."},
    {HeaderFault::too_large, "header-too-large", "The header length is above 100,000,000 bytes."},
    {HeaderFault::past_end, "header-past-end", "The header length reaches past the end of the file."},
    {HeaderFault::not_utf8, "header-not-utf8", "The header holds bytes that are not UTF-8."},
    {HeaderFault::not_json, "header-not-json", "The header is not one well-formed JSON value."},
    {HeaderFault::too_deep, "header-too-deep", "The header nests deeper than 128 levels."},
    {HeaderFault::not_object, "header-not-object", "The header is JSON, but not an object."},
    {HeaderFault::entry_not_object, "entry-not-object", "An entry is not an object."},
    {HeaderFault::metadata_not_object, "metadata-not-object", "__metadata__ is not an object."},
    {HeaderFault::metadata_not_string, "metadata-not-string", "A value in __metadata__ is not a string."},
    {HeaderFault::duplicate_metadata, "duplicate-metadata", "__metadata__ occurs twice."},
    {HeaderFault::duplicate_tensor, "duplicate-tensor", "Two entries have the same name."},
    {HeaderFault::duplicate_field, "duplicate-field", "An entry has dtype, shape or data_offsets twice."},
    {HeaderFault::dtype_missing, "dtype-missing", "An entry has no dtype."},
    {HeaderFault::dtype_bad, "bad-dtype", "A dtype is not a string."},
    {HeaderFault::dtype_unknown, "unknown-dtype", "A dtype is not one of the names that safetensors 0.8.0 has."},
    {HeaderFault::shape_missing, "shape-missing", "An entry has no shape."},
    {HeaderFault::shape_bad, "bad-shape", "A shape is not a list of whole numbers."},
    {HeaderFault::shape_negative, "negative-shape", "A dimension is negative."},
    {HeaderFault::shape_too_large, "shape-too-large", "A dimension does not fit 63 bits."},
    {HeaderFault::rank_too_large, "rank-too-large", "A shape has more than 64 dimensions."},
    {HeaderFault::element_overflow, "element-overflow", "A tensor has more than 2^62 elements or bits."},
    {HeaderFault::partial_byte, "partial-byte", "A tensor of 4- or 6-bit elements does not fill whole bytes."},
    {HeaderFault::offsets_missing, "offsets-missing", "An entry has no data_offsets."},
    {HeaderFault::offsets_bad, "bad-offsets", "data_offsets is not a list of two whole numbers that fit 63 bits."},
    {HeaderFault::offsets_reversed, "offsets-reversed", "data_offsets begins after it ends."},
    {HeaderFault::size_mismatch, "size-mismatch", "data_offsets spans another size than dtype and shape give."},
    {HeaderFault::overlap, "tensors-overlap", "Two tensors share bytes."},
    {HeaderFault::gap, "data-gap", "Some bytes between tensors belong to none."},
    {HeaderFault::truncated, "truncated-file", "The file ends before the data of its tensors does."},
    {HeaderFault::trailing_bytes, "trailing-bytes", "Bytes follow the data of the last tensor."},
};

constexpr bool in_order() {
  for (size_t i = 0; i < std::size(kErrors); ++i)
    if (static_cast<size_t>(kErrors[i].fault) != i) return false;
  return std::size(kErrors) == static_cast<size_t>(HeaderFault::trailing_bytes) + 1;
}
static_assert(in_order());

}  // namespace

std::span<const HeaderError> all_header_errors() {
  return kErrors;
}

std::string_view name(HeaderFault fault) {
  return kErrors[static_cast<size_t>(fault)].name;
}

}  // namespace mezzotint::io
