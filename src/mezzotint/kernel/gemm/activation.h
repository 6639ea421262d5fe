#pragma once
#include "mezzotint/base/scalar.h"

/// The functions that products and quantizers apply to values on their way. Plain float32 operations without
/// contraction, so loops over them vectorize and give the same bits at every instruction-set level.
namespace mezzotint::kernel {

/// e^x within 2 ulp for x in [-87, 88]; e^-87 below and inf from 88.5 on. NaN stays NaN.
MEZZOTINT_SCALAR float exp_clamped(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the sum's low mantissa bits are the rounded integer
  const float low = x < -87.0f ? -87.0f : x;
  const float v = low > 89.0f ? 89.0f : low;
  const float sum = v * 1.44269504f + kMagic;
  const float n = sum - kMagic;
  // ln 2 in two parts (Cody and Waite), the first with so few bits that its product with n is exact.
  const float r = (v - n * 0.693359375f) - n * -2.12194440e-4f;
  // Cephes' expf: minimax for e^r - 1 - r on |r| <= ln(2)/2.
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = (p * (r * r) + r) + 1.0f;
  return e * float_from_bits((float_bits(sum) - float_bits(kMagic) + 127u) << 23);
}

/// v / (1 + e^-v).
MEZZOTINT_SCALAR float silu(float v) {
  return v / (1.0f + exp_clamped(-v));
}

/// 0.5 v (1 + tanh(u)), u = sqrt(2/pi) (v + 0.044715 v^3), as v / (1 + e^-2u), which loses nothing where tanh is near
/// -1.
MEZZOTINT_SCALAR float gelu_tanh(float v) {
  constexpr float kTwiceSqrt2OverPi = 1.59576912f;
  return v / (1.0f + exp_clamped(-kTwiceSqrt2OverPi * (v + 0.044715f * (v * v * v))));
}

}  // namespace mezzotint::kernel
