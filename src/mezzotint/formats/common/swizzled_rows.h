#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "mezzotint/formats/common/swizzle.h"

/// Rows of block scales in and out of a blocked buffer (swizzle.h). Four neighbouring columns lie side by side.
namespace mezzotint::formats::swizzle {

/// Calls f(byte of the scale (r, first), r - row, n) for runs of n rows that lie 16 bytes apart.
template <class F>
void for_each_run(int64_t row, int64_t rows, int64_t cols, int64_t first, F&& f) {
  for (int64_t r = row; r < row + rows;) {
    const int64_t end = std::min(row + rows, (r / 32 + 1) * 32);
    f(offset(r, first, cols), r - row, end - r);
    r = end;
  }
}

/// out[r * stride + i] = scale (row + r, first + i) of a matrix with `cols` columns, r < rows, i < count. `first` and
/// `count` are multiples of 4 inside padded_cols(cols).
inline void read_rows(const std::byte* buffer, int64_t row, int64_t rows, int64_t cols, int64_t first, int64_t count,
                      uint8_t* out, int64_t stride) {
  // Down the columns: a tile's rows are neighbours in memory.
  for_each_run(row, rows, cols, first, [&](int64_t at, int64_t r0, int64_t n) {
    for (int64_t i = 0; i < count; i += 4, at += kTileBytes)
      for (int64_t r = 0; r < n; ++r) std::memcpy(out + (r0 + r) * stride + i, buffer + at + 16 * r, 4);
  });
}

/// The scales of columns [col0, col0 + cols) of a weight with `block` columns to a scale, in the runs of four that
/// read_rows wants.
struct Window {
  int64_t first, count;

  constexpr Window(int64_t col0, int64_t cols, int64_t block)
      : first(col0 / (4 * block) * 4), count(round_up_to(divide_up(col0 + cols, block), 4) - first) {}

  /// out[r * count + i] = scale (row + r, first + i) of a matrix with `across` columns.
  void read(const std::byte* buffer, int64_t row, int64_t rows, int64_t across, uint8_t* out) const {
    read_rows(buffer, row, rows, across, first, count, out, count);
  }
};

/// Scale (row + r, i) = scales[r * stride + i], r < rows, i < cols.
inline void write_rows(std::byte* buffer, int64_t row, int64_t rows, int64_t cols, const uint8_t* scales,
                       int64_t stride) {
  const int64_t whole = cols / 4 * 4, rest = cols - whole;
  for_each_run(row, rows, cols, 0, [&](int64_t at, int64_t r0, int64_t n) {
    for (int64_t i = 0; i < whole; i += 4, at += kTileBytes)
      for (int64_t r = 0; r < n; ++r) std::memcpy(buffer + at + 16 * r, scales + (r0 + r) * stride + i, 4);
    for (int64_t r = 0; rest != 0 && r < n; ++r)
      std::memcpy(buffer + at + 16 * r, scales + (r0 + r) * stride + whole, static_cast<size_t>(rest));
  });
}

}  // namespace mezzotint::formats::swizzle
