#pragma once
#include <cstddef>

#include "mezzotint/kernel/gemm/gemm_types.h"
#include "mezzotint/kernel/gemm/operand.h"

/// Products of activations with stored weights, decoded while they are packed: no decoded or packed copy of a weight
/// outlives its block. Either operand may be codes, so the same function multiplies bf16 with fp8, fp8 with fp8, or
/// 4-bit codes and block scales with each other.
///
/// Two ways to compute, both with float32 sums:
/// - f32: operands become float32, sums of fused multiply-adds (the scalar level rounds products too).
/// - bf16 (levels avx512bf16 and amx): operands become bf16. Exact for all codes but f32 and f16 (operand.h), and all
///   products of bf16 are exact in float32, so only sums round. Scales of type f32 are multiplied onto the sum of their
///   block. Magnitudes below 2^-126 count as zero.
/// With e = 2^-24, R the length of the reduction, S = sum |x w| of the element: |error| <= (R + 4) e S, to first order,
/// plus (R + 1) 2^-125 max(1, |x|, |w|) for what falls below 2^-126; operands of f32 and f16 in the bf16 way add
/// 2^-8 S each, and so do reduction_scales there. After that the epilogue (3 roundings and gelu's 2^-20) and the
/// rounding to the output's type. NaN and inf of either operand reach their row or column as IEEE arithmetic says.
///
/// Results do not depend on the number of threads. They do depend on the level, and M up to kFewRows is computed in
/// another order than more rows.
namespace mezzotint::kernel {

enum class Compute : uint8_t {
  automatic,  ///< bf16 where the level has it and it is exact for both operands; else f32
  bf16,       ///< bf16 wherever the level has it and the scales allow it
  f32,
};

struct FloatGemm {
  Operand x;                ///< activations: [M, K], transposed [M, N]
  Operand w;                ///< weight [N, K] as stored
  bool transposed = false;  ///< y[M, K] = x[M, N] * w instead of y[M, N] = x[M, K] * w^T
  /// One factor for every index of the reduction, multiplied onto x before anything else, or null: a weight's row
  /// scales in the transposed product.
  const float* reduction_scale = nullptr;
  Epilogue epilogue;  ///< columns are the columns of y
  Compute compute = Compute::automatic;
};

/// Up to this many rows the forward product reads every stored row once and packs nothing.
constexpr int64_t kFewRows = 6;

/// Bytes of scratch that float_gemm needs for this product and number of threads; less than 6 MiB per thread, and for
/// few rows also the rows of x as float32.
size_t float_gemm_scratch(const FloatGemm& product, int threads);

/// Computes all of y. `scratch` may lie at any address; threads as in gemm_threads.h. K of x and w must agree, dtypes
/// of y are f32, bf16 and f16, and block scales of 4-bit codes have an even number of columns; y must overlap nothing.
void float_gemm(const FloatGemm& product, const Output& y, void* scratch, int threads);

/// Whether float_gemm would compute in bf16 here and now.
bool computes_in_bf16(const FloatGemm& product);

}  // namespace mezzotint::kernel
