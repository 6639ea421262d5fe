#pragma once
#include <cstdint>

#include "mezzotint/base/dtype.h"

/// What all matrix products share. y[M, N] = x[M, K] * W[N, K]^T is called the forward product, y[M, K] = g[M, N] *
/// W[N, K] the transposed one (the input's gradient).
namespace mezzotint::kernel {

enum class Activation : uint8_t {
  none,
  gelu_tanh,  ///< 0.5 v (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3))), torch's gelu(approximate="tanh")
};

/// A row-major result of f32, bf16 or f16, rounded once to nearest-even from float32.
struct Output {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;  ///< elements from one row to the next
};

/// Integers that activations are rounded to.
struct IntegerRange {
  float largest = 127;            ///< codes of dynamic scales lie within +-largest
  float lowest_given = -128;      ///< codes of given scales reach down to here
  float smallest_scale = 1e-30f;  ///< of dynamic ones

  /// Those of four bits, a byte each.
  static constexpr IntegerRange int4() { return {7, -7, 0x1p-126f}; }
};

/// What happens to a float32 accumulator on its way out: activation(acc * row_scale[m] * col_scale[n] + bias[n]).
struct Epilogue {
  const float* row_scale = nullptr;  ///< one per row of y, or null for 1
  const float* col_scale = nullptr;  ///< one per column of y, or null for `scale` alone
  float scale = 1.0f;                ///< of the whole product
  const float* bias = nullptr;       ///< one per column of y, or null
  Activation activation = Activation::none;
};

}  // namespace mezzotint::kernel
