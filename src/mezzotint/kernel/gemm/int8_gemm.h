#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "mezzotint/kernel/gemm/gemm_types.h"

/// Products of int8 codes. Stored bytes are read where they lie; panels are packed into scratch that the caller passes.
///
/// One definition holds at every instruction-set level, and the results are the same bits at all of them and for every
/// number of threads. With D the dimension that is summed over (K forward, N transposed):
/// - without block scales: acc = float32 of the exact integer sum, taken in stretches of kInt8Stretch codes whose
///   float32 values are added in order (one stretch, so one rounding, up to 65,536 codes);
/// - with block scales: acc = 0; for every block b of 128 codes in order: acc = fma(float32(integer sum over b),
///   x.scale[m, b] * w.scale[., b], acc). The integer sum of a block is exact in float32.
/// - y = activation(acc * ((row_scale[m] * scale) * col_scale[n]) + bias[n]), each operation rounded to float32, a
///   missing factor left out; then one rounding to the output's type. Where gelu is not asked for and both scales are
///   given this is comfy-kitchen's f32(acc) * fl(sx * sw), whose eager backend rounds once more before the bias.
///
/// Derived bound: |y - exact| <= eps * ((D / 128 + 3) * sum |x w| * scales + |bias| + |y|), eps = 2^-24, before the
/// output's own rounding.
namespace mezzotint::kernel {

inline constexpr int64_t kInt8Block = 128;      ///< codes that share a block scale, in either direction
inline constexpr int64_t kInt8Stretch = 65536;  ///< codes whose products surely add up within int32

/// Row-major codes and, where they are quantized block-wise, their scales.
struct Int8Codes {
  const int8_t* codes = nullptr;  ///< element (0, 0), at any address
  int64_t stride = 0;             ///< bytes from one row to the next
  const float* scales = nullptr;  ///< null: scales are the epilogue's alone
  int64_t scales_stride = 0;      ///< scales from one row of blocks to the next
  /// Codes of 4 bits, two to a byte as in kernel/int4.h: of a weight without block scales in the forward product.
  bool int4 = false;
};

/// Both operands have block scales or neither.
struct Int8Product {
  int64_t m = 0, n = 0, k = 0;
  Int8Codes x;  ///< forward [M, K], transposed g [M, N]; one block scale per row and 128 codes of it
  Int8Codes w;  ///< [N, K]; one block scale per 128 x 128 codes; blocks at the edges may be partial
  Epilogue epilogue;
};

/// A result quantized again: codes of [-127, 127] and one scale per row and 128 columns, max(amax / 127, 1e-30).
struct Int8BlockOutput {
  int8_t* codes = nullptr;
  int64_t stride = 0;  ///< bytes
  float* scales = nullptr;
  int64_t scales_stride = 0;  ///< scales
};

/// Bytes of scratch, at any alignment, that the products of this shape need in either direction at any level; `int4`:
/// with such a weight.
size_t int8_gemm_scratch_bytes(int64_t m, int64_t n, int64_t k, int threads, bool int4 = false);

/// y[M, N] = x[M, K] * w[N, K]^T. threads = 0: as many as this process may use. Throws Error "scratch-too-small".
void int8_forward(const Int8Product& product, const Output& y, std::span<std::byte> scratch, int threads = 1);
void int8_forward(const Int8Product& product, const Int8BlockOutput& y, std::span<std::byte> scratch, int threads = 1);

/// y[M, K] = g[M, N] * w[N, K], g = product.x. Scales per row of w belong to the summed dimension: fold them into g
/// before quantizing it (Int8Quantization::col_scale), and give none here.
void int8_transposed(const Int8Product& product, const Output& y, std::span<std::byte> scratch, int threads = 1);
void int8_transposed(const Int8Product& product, const Int8BlockOutput& y, std::span<std::byte> scratch,
                     int threads = 1);

}  // namespace mezzotint::kernel
