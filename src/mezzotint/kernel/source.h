#pragma once
#include <cstdint>

#include "mezzotint/base/dtype.h"

namespace mezzotint::kernel {

/// A row-major matrix of f32, bf16 or f16 values that a kernel reads; at any address: no alignment is needed.
struct Source {
  const void* data = nullptr;  ///< element (0, 0)
  DType dtype = DType::f32;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  ///< elements from one row to the next
};

/// Rows [row0, row0 + rows) of x. Inlined always: ISA files may use it without a weak symbol.
[[gnu::always_inline]] inline Source rows_of(const Source& x, int64_t row0, int64_t rows) {
  const int64_t bytes = row0 * x.stride * (x.dtype == DType::f32 ? 4 : 2);
  return {static_cast<const uint8_t*>(x.data) + bytes, x.dtype, rows, x.cols, x.stride};
}

/// One scale for every block of a matrix. Element (r, c) of a kernel's matrix has the scale
/// data[(row0 + r) / block_rows * stride + (col0 + c) / block_cols], where a block size of 0 means the whole dimension.
/// row0 and col0 place a tile in the matrix that the scales belong to.
struct Scales {
  const float* data = nullptr;
  int64_t block_rows = 0, block_cols = 0;
  int64_t stride = 0;  ///< scales from one row of blocks to the next
  int64_t row0 = 0, col0 = 0;

  static Scales scalar(const float* scale) { return {scale, 0, 0, 0, 0, 0}; }
  static Scales per_row(const float* scales, int64_t row0 = 0) { return {scales, 1, 0, 1, row0, 0}; }
  static Scales blocks(const float* scales, int64_t stride, int64_t block_rows, int64_t block_cols, int64_t row0 = 0,
                       int64_t col0 = 0) {
    return {scales, block_rows, block_cols, stride, row0, col0};
  }
};

/// Indices of elements in the logical weight, for stochastic rounding: element (r, c) of a kernel's matrix has the
/// index first + r * row_stride + c. A tile at (row0, col0) of a weight with K columns: {row0 * K + col0, K}.
struct ElementIndex {
  uint64_t first = 0;
  uint64_t row_stride = 0;
};

}  // namespace mezzotint::kernel
