#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/io/tensor_info.h"

/// The header of a safetensors file: 8 bytes little-endian length n, n bytes of UTF-8 JSON, then the data buffer.
///
/// Stricter than needed for a lucky read, never stricter than the reference (safetensors 0.8.0) except for tensors and
/// fields that occur twice, where the reference silently takes one of them. Accepted: any length of the JSON (padding
/// is not required), white space around it, fields that we do not know, any order of entries, empty tensors, rank 0,
/// data that is not aligned, a metadata key given twice (the last value counts).
namespace mezzotint::io {

/// Upper limit of a header, as in the reference implementation.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
/// Nesting in fields that we skip, and dimensions of a tensor (PyTorch's own limit).
inline constexpr size_t kMaxJsonDepth = 128;
inline constexpr size_t kMaxRank = 64;

/// A parsed and fully checked header.
struct Header {
  std::vector<TensorInfo> tensors;  ///< in the order of their data
  Metadata metadata;                ///< in file order
  uint64_t data_start = 0;          ///< file offset of the data buffer
  uint64_t file_bytes = 0;
};

/// Every way in which a header can lie. The Error that says so carries the name in all_header_errors().
enum class HeaderFault : uint8_t {
  file_too_short,
  length_zero,
  too_large,
  past_end,
  not_utf8,
  not_json,
  too_deep,
  not_object,
  entry_not_object,
  metadata_not_object,
  metadata_not_string,
  duplicate_metadata,
  duplicate_tensor,
  duplicate_field,
  dtype_missing,
  dtype_bad,
  dtype_unknown,
  shape_missing,
  shape_bad,
  shape_negative,
  shape_too_large,
  rank_too_large,
  element_overflow,
  partial_byte,
  offsets_missing,
  offsets_bad,
  offsets_reversed,
  size_mismatch,
  overlap,
  gap,
  truncated,
  trailing_bytes,
};

struct HeaderError {
  HeaderFault fault;
  std::string_view name;     ///< of the Error, e.g. "size-mismatch"
  std::string_view meaning;  ///< one sentence for the manual
};
/// In the order of HeaderFault.
std::span<const HeaderError> all_header_errors();
std::string_view name(HeaderFault fault);

/// The length in the first 8 bytes (or fewer, of a shorter file), checked against the size of the file. `file` is used
/// in messages only, here and below.
uint64_t parse_header_length(std::span<const char> first, uint64_t file_bytes, const std::string& file);

/// Parses and checks the JSON, i.e. all bytes that the length announces. Memory is bounded by a small multiple of
/// json.size().
Header parse_header(std::span<const char> json, uint64_t file_bytes, const std::string& file);

}  // namespace mezzotint::io
