#pragma once
#include "mezzotint/base/dtype.h"
#include "mezzotint/kernel/cuda/cuda.h"

/// y[M, N] = x[M, K] * W[N, K]^T (+ bias) of int8 codes on the tensor cores (mma m16n8k32), sums in int32.
///
/// Bounds, u = 2^-24, S = sum over k of |x~||w~| with x~ and w~ the dequantized operands:
/// - block-wise: the sum of a block of 128 is exact; the product of two scales, the fused multiply-add of every block
///   and the bias round once each: |error| <= (blocks + 2) u S + u |y|, to first order;
/// - by row: the sum is exact, its conversion, two scales and the bias round once each: 3 u S + u |y|;
/// then the result is rounded to `to`.
namespace mezzotint::kernel::cuda {

struct Int8Gemm {
  int64_t m = 0, n = 0, k = 0;  ///< k < 2^17, so that no sum leaves int32
  const int8_t* x = nullptr;    ///< rows x_stride bytes apart
  const int8_t* w = nullptr;    ///< rows w_stride bytes apart
  int64_t x_stride = 0, w_stride = 0;
  const float* bias = nullptr;  ///< [n], or null
  void* y = nullptr;
  DType to = DType::bf16;  ///< f32, bf16 or f16
  int64_t y_stride = 0;    ///< elements
};

/// A scale for every 128 columns of a row of x, [m, ceil(k / 128)], and for every 128 x 128 block of W,
/// [ceil(n / 128), ceil(k / 128)].
void gemm_int8_blockwise(const Int8Gemm& gemm, const float* x_scales, const float* w_scales, Stream stream);

/// A scale for every row of x, [m], and every row of W, [n], or one for all of W (w_scale_count = 1).
void gemm_int8_rowwise(const Int8Gemm& gemm, const float* x_scales, const float* w_scales, int64_t w_scale_count,
                       Stream stream);

/// out[c, r] = x[r, c] of one-byte codes. g * W is the product above with W's transpose; block scales are transposed
/// as well (a matrix of K / 128 columns: transpose_floats).
void transpose_codes(const void* x, int64_t rows, int64_t cols, int64_t stride, void* out, int64_t out_stride,
                     Stream stream);
void transpose_floats(const float* x, int64_t rows, int64_t cols, float* out, Stream stream);

}  // namespace mezzotint::kernel::cuda
