#pragma once
#include "mezzotint/kernel/gemm/gemm_types.h"
#include "mezzotint/kernel/gemm/panel_decode.h"

/// What the driver of float products (float_gemm.cpp) is built from, one set per instruction-set level and per type of
/// the packed values: float32 (levels scalar, avx2, avx512) or bf16 with float32 accumulators (avx512bf16, amx).
///
/// Packed right operand, a "panel": kNr columns; a row of the panel holds for every column one float32, or one pair of
/// consecutive bf16 along the reduction; so both are dwords, and packing is a transposition of dwords. The left operand
/// is packed as plain rows. Both are padded with zeros to a multiple of `granule` along the reduction.
namespace mezzotint::kernel {

struct FloatKernels {
  Isa isa;
  int element_bytes;  ///< of a packed value: 4 or 2
  int rows;           ///< of y that one call of multiply makes at most; all of them are written if full_tiles
  int columns;        ///< of a panel
  int granule;        ///< of the reduction
  bool full_tiles;    ///< multiply reads and writes `rows` rows, however few are asked for

  /// A rectangle of an operand as packed values.
  void (*decode)(const Operand& m, const Rectangle& part, void* out, int64_t out_stride);
  /// The same times factors[c], the factor of column c0 + c, rounded once more.
  void (*decode_scaled)(const Operand& m, const Rectangle& part, const float* factors, void* out, int64_t out_stride);
  /// panel[i * columns + c] = dword i of row c, for 16 or fewer rows.
  void (*transpose_dwords)(const void* rows, int64_t count, int64_t dwords, int64_t stride, void* panel,
                           int64_t columns);
  /// One row of panels for the transposed product: element_bytes = 4: a copy; 2: pairs (first[c], second[c]).
  void (*interleave)(const void* first, const void* second, int64_t columns, void* out);
  /// c[r, 0 .. columns) (+)= fold[column] * sum over dwords of a[r] * panel, the rows of a kPackedRowBytes apart; fold
  /// may be null.
  void (*multiply)(int64_t rows, int64_t dwords, const void* a, const void* panel, float* c, int64_t c_stride,
                   const float* fold, bool accumulate);
  /// sums[(r * count + m) * 16 + lane] (+)= fold[r] * partial sums of w[r] * x[m] over `dwords` (a multiple of 16), for
  /// kDotRows rows of w and any number of x; strides count bytes.
  void (*dot)(const void* w, int64_t w_stride, const void* x, int64_t x_stride, int64_t count, int64_t dwords,
              float* sums, const float* fold, bool accumulate);
  /// sums[m * sums_stride + i] = w[n0 + i] * x[m] for `count` <= kFewRows rows of x: stored codes go through registers
  /// only. False where w's codes have no such path; null: none have.
  bool (*dot_stored)(const Operand& w, int64_t n0, int64_t n, const void* x, int64_t x_stride, int64_t count,
                     float* sums, int64_t sums_stride);
  /// Columns [col0, col0 + columns) of a row of y from their sums, which it overwrites.
  void (*finish)(const Epilogue& epilogue, int64_t row, int64_t col0, int64_t columns, float* sums, const Output& y);
  /// Around all calls of multiply on one thread, or null.
  void (*begin)();
  void (*end)();
};

constexpr int64_t kDepthBytes = 1024;      ///< of a packed row: 512 bf16 or 256 f32
constexpr int64_t kPackedRowBytes = 1088;  ///< rows of 1024 bytes would fall on few sets of the cache
constexpr int64_t kDotRows = 4;
/// The small products of GEMV keep this many partial sums per element.
constexpr int64_t kLanes = 16;

template <Isa I>
FloatKernels f32_kernels();
template <Isa I>
FloatKernels bf16_kernels();

template <Isa I>
void finish_columns(const Epilogue& epilogue, int64_t row, int64_t col0, int64_t columns, float* sums, const Output& y);

}  // namespace mezzotint::kernel
