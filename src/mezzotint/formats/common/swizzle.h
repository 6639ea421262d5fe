#pragma once
#include <cstdint>

#include "mezzotint/base/dtype.h"
#include "mezzotint/base/round_up.h"

/// The "blocked" layout in which cuBLASLt wants block scales (its 32x4x4 tiles), one byte per scale.
///
/// A logical matrix of scales, one row per stored row of codes and one column per block, is padded to multiples of 128
/// rows and 4 columns and cut into tiles of 128 x 4. A tile is 512 bytes; tiles follow each other row by row. Within a
/// tile row r = 32 a + b, column c lies at byte 16 b + 4 a + c. Files store the buffer as a tensor
/// [up(rows, 128), up(cols, 4)], whose rows and columns mean nothing; unused bytes are zero.
/// (NVIDIA cuBLAS documentation, "1D Block Scaling Factors Layout".)
namespace mezzotint::formats::swizzle {

constexpr int64_t kTileRows = 128;
constexpr int64_t kTileCols = 4;
constexpr int64_t kTileBytes = kTileRows * kTileCols;

constexpr int64_t padded_rows(int64_t rows) {
  return round_up_to(rows, kTileRows);
}
constexpr int64_t padded_cols(int64_t cols) {
  return round_up_to(cols, kTileCols);
}

/// Bytes of the buffer for a matrix of scales.
constexpr int64_t bytes(int64_t rows, int64_t cols) {
  return padded_rows(rows) * padded_cols(cols);
}

/// Shape of the stored tensor, behind a leading dimension for a bank of experts: a buffer of its own for each.
inline Shape shape(const Shape& weight, int64_t rows, int64_t cols) {
  Shape stored{padded_rows(rows), padded_cols(cols)};
  if (weight.size() == 3) stored.insert(stored.begin(), weight[0]);
  return stored;
}

/// Byte of the scale (row, col) of a matrix with `cols` columns. Four consecutive columns from a multiple of 4 lie side
/// by side, and the next four kTileBytes further.
constexpr int64_t offset(int64_t row, int64_t col, int64_t cols) {
  const int64_t tile = row / kTileRows * (padded_cols(cols) / kTileCols) + col / kTileCols;
  return tile * kTileBytes + row % 32 * 16 + row % kTileRows / 32 * 4 + col % kTileCols;
}

}  // namespace mezzotint::formats::swizzle
