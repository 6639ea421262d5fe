#pragma once
// Included by ISA files: float32 results on their way out. Plain loops that vectorize; the same bits at every level.
#include "mezzotint/base/integer.h"
#include "mezzotint/kernel/gemm/activation.h"
#include "mezzotint/kernel/gemm/gemm_types.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// v[j] = activation(v[j] * ((row_scale[row] * scale) * col_scale[col0 + j]) + bias[col0 + j]) for j < n.
[[gnu::noinline, maybe_unused]] void finish_values(const Epilogue& e, int64_t row, int64_t col0, int64_t n,
                                                   float* __restrict v) {
  const float s = (e.row_scale != nullptr ? e.row_scale[row] : 1.0f) * e.scale;
  if (e.col_scale != nullptr) {
    const float* __restrict col = e.col_scale + col0;
    for (int64_t j = 0; j < n; ++j) v[j] = v[j] * (s * col[j]);
  } else if (s != 1.0f) {
    for (int64_t j = 0; j < n; ++j) v[j] = v[j] * s;
  }
  if (e.bias != nullptr) {
    const float* __restrict bias = e.bias + col0;
    for (int64_t j = 0; j < n; ++j) v[j] = v[j] + bias[j];
  }
  if (e.activation == Activation::gelu_tanh)
    for (int64_t j = 0; j < n; ++j) v[j] = gelu_tanh(v[j]);
}

/// y[row, col0 + j] = v[j], rounded to the output's type.
[[gnu::noinline, maybe_unused]] void store_values(const Output& y, int64_t row, int64_t col0, int64_t n,
                                                  const float* __restrict v) {
  const int64_t at = row * y.stride + col0;
  if (y.dtype == DType::bf16) {
    Word* __restrict to = static_cast<Word*>(y.data) + at;
    for (int64_t j = 0; j < n; ++j) to[j] = static_cast<uint16_t>(Bf16::encode(v[j]));
  } else if (y.dtype == DType::f16) {
    Word* __restrict to = static_cast<Word*>(y.data) + at;
    for (int64_t j = 0; j < n; ++j) to[j] = static_cast<uint16_t>(Fp16::encode(v[j]));
  } else {
    Dword* __restrict to = static_cast<Dword*>(y.data) + at;
    for (int64_t j = 0; j < n; ++j) to[j] = float_bits(v[j]);
  }
}

/// The largest finite |v[j]|, as bits.
[[gnu::noinline, maybe_unused]] int32_t finite_magnitude(int64_t n, const float* __restrict v) {
  int32_t top = 0;
  for (int64_t j = 0; j < n; ++j) {
    const int32_t bits = static_cast<int32_t>(float_bits(v[j])) & kFloatMagnitude;
    const int32_t finite = bits < kFloatInfBits ? bits : 0;
    top = top > finite ? top : finite;
  }
  return top;
}

/// max(amax / largest code, smallest) over the finite values.
[[maybe_unused]] float int8_scale(int64_t n, const float* v, const IntegerRange& range = {}) {
  const float scale = float_from_bits(static_cast<uint32_t>(finite_magnitude(n, v))) / range.largest;
  return scale > range.smallest_scale ? scale : range.smallest_scale;
}

/// codes[j] = rint(v[j] / scale) within [lowest, highest]; NaN becomes 0.
[[gnu::noinline, maybe_unused]] void int8_codes(int64_t n, const float* __restrict v, float scale, float lowest,
                                                float highest, Byte* __restrict codes) {
  for (int64_t j = 0; j < n; ++j) codes[j] = static_cast<uint8_t>(Int8::encode(v[j] / scale, lowest, highest));
}

}  // namespace
}  // namespace mezzotint::kernel
