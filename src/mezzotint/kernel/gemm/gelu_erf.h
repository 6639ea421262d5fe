#pragma once
#include "mezzotint/kernel/gemm/activation.h"

namespace mezzotint::kernel {

/// v * Phi(v), torch's gelu(approximate="none"), within |v| * 2e-7: Phi by Abramowitz and Stegun 7.1.26, whose error is
/// at most 1.5e-7 in erf. NaN stays NaN.
MEZZOTINT_SCALAR float gelu_erf(float v) {
  const float z = (v < 0.0f ? -v : v) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float half_erfc = 0.5f * (p * t * exp_clamped(-(z * z)));
  return v * (v < 0.0f ? half_erfc : 1.0f - half_erfc);
}

}  // namespace mezzotint::kernel
