#pragma once
#include "mezzotint/formats/format.h"

/// The way back from int8_quip's transformed weights.
namespace mezzotint::formats::int8_quip {

// Suffixes of what is stored beside weight and weight_scale.
inline constexpr std::string_view kFlag = "hadamard_quip", kSizeOut = "hadamard_size_out", kSizeIn = "hadamard_size_in",
                                  kSignRow = "sign_row", kSignCol = "sign_col", kDenseRow = "quip_s_u",
                                  kDenseCol = "quip_s_v", kSmooth = "smooth_factors";

/// Index of a stored tensor in layout.tensors, or 0.
size_t index_of(const Layout& layout, std::string_view suffix);

/// Format::decode, whole: rows 0 .. N of the weight from all stored rows of codes.
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride);

}  // namespace mezzotint::formats::int8_quip
