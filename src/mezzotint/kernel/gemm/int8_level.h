#pragma once
#include "mezzotint/kernel/gemm/int8_gemm.h"
#include "mezzotint/kernel/isa.h"

/// Between the driver of the int8 products (int8_gemm.cpp) and their levels (int8_*.isa_*.cpp).
namespace mezzotint::kernel {

inline constexpr int64_t kInt8Panel = 128;  ///< columns of y that one task computes

/// y[rows, cols] = a[rows, depth] * b[cols, depth]^T; forward and transposed products differ in b's strides alone.
struct Int8Job {
  int64_t rows = 0, cols = 0, depth = 0;
  Int8Codes a;  ///< depth runs along its rows
  const int8_t* b = nullptr;
  int64_t b_col = 0, b_depth = 0;  ///< bytes from one column of y, one step of the sum, to the next; one of them is 1
  bool b_int4 = false;             ///< the driver unpacks them: levels never see it
  const float* b_scales = nullptr;
  int64_t b_scale_col = 0, b_scale_depth = 0;  ///< the same for scales, in blocks of 128
  Epilogue epilogue;
  Output y;
  Int8BlockOutput blocks;  ///< instead of y where codes is not null

  [[gnu::always_inline]] bool block_scaled() const { return a.scales != nullptr; }
  [[gnu::always_inline]] int64_t depth_blocks() const { return (depth + kInt8Block - 1) / kInt8Block; }
};

/// The part of y that one task computes: rows [row0, row0 + rows) of the columns [col0, col0 + kInt8Panel).
struct Int8Part {
  int64_t row0 = 0, rows = 0, col0 = 0;
  const std::byte* packed_rows = nullptr;  ///< of row0
  std::byte* scratch = nullptr;            ///< this thread's, aligned to 64
};

/// How a level packs.
struct Int8Shape {
  int tile_rows;         ///< parts begin at multiples of it
  int64_t row_bytes;     ///< packed, per row and block of the depth; a tile's rows lie together
  int64_t column_bytes;  ///< packed, per column and block of the depth
  int64_t depth;         ///< a panel's columns are packed this far at a time; a multiple of 128
  int64_t stored_rows;   ///< up to so many rows of y the stored codes of b are read as they lie (forward only)
};

struct Int8Level {
  Int8Shape shape;
  /// Packs rows [row0, row0 + rows), row0 a multiple of tile_rows, to `to`.
  void (*pack_rows)(const Int8Job& job, int64_t row0, int64_t rows, std::byte* to);
  /// Computes a part from packed rows.
  void (*panel)(const Int8Job& job, const Int8Part& part);
  /// Computes a part of at most stored_rows rows without packing anything; job.b_depth = 1.
  void (*as_stored)(const Int8Job& job, const Int8Part& part);
};
template <Isa I>
Int8Level int8_level();

/// Scratch of one thread for parts of `rows` rows.
constexpr int64_t int8_part_scratch(const Int8Shape& shape, int64_t rows, int64_t depth) {
  const int64_t blocks = (depth + kInt8Block - 1) / kInt8Block;
  const int64_t packed = blocks < shape.depth / kInt8Block ? blocks : shape.depth / kInt8Block;
  const int64_t sums = rows * kInt8Panel * 4 * (depth > kInt8Stretch ? 2 : 1);
  const int64_t stored = shape.stored_rows * (blocks + 16) * (16 + 2) * 4;
  const int64_t paneled = packed * shape.column_bytes * kInt8Panel + sums;
  return (paneled > stored + sums ? paneled : stored + sums) + 256;
}

}  // namespace mezzotint::kernel
