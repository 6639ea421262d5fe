#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "mezzotint/formats/common/swizzle.h"

/// Rows of block scales in and out of a blocked buffer (swizzle.h). Four neighbouring columns lie side by side.
namespace mezzotint::formats::swizzle {

/// out[i] = scale (row, first + i) of a matrix with `cols` columns, i < count. `first` and `count` are multiples of 4
/// inside padded_cols(cols).
inline void read_row(const std::byte* buffer, int64_t row, int64_t cols, int64_t first, int64_t count, uint8_t* out) {
  const std::byte* from = buffer + offset(row, first, cols);
  for (int64_t i = 0; i < count; i += 4, from += kTileBytes) std::memcpy(out + i, from, 4);
}

/// The whole row; `scales` holds `cols` bytes.
inline void write_row(std::byte* buffer, int64_t row, int64_t cols, const uint8_t* scales) {
  std::byte* to = buffer + offset(row, 0, cols);
  for (int64_t i = 0; i < cols; i += 4, to += kTileBytes)
    std::memcpy(to, scales + i, static_cast<size_t>(std::min<int64_t>(4, cols - i)));
}

}  // namespace mezzotint::formats::swizzle
