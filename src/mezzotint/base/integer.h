#pragma once
#include "mezzotint/base/scalar.h"

namespace mezzotint {

/// Signed integer codes of at most 8 bits: [lowest, highest] within [-128, 127], both whole numbers. NaN becomes 0,
/// infinities the bounds.
struct Int8 {
  /// rint(clamp(x, lowest, highest)), ties to even; the same number as clamp(rint(x), lowest, highest).
  MEZZOTINT_SCALAR static int32_t encode(float x, float lowest, float highest) {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the sum's low mantissa bits are the rounded integer
    const float sum = clamp(x, lowest, highest) + kMagic;
    return static_cast<int32_t>(float_bits(sum)) - static_cast<int32_t>(float_bits(kMagic));
  }
  /// floor(clamp(x) + u) with u uniform in [0, 1): expectation clamp(x) up to 2^-24 towards zero.
  MEZZOTINT_SCALAR static int32_t encode_stochastic(float x, float lowest, float highest, uint32_t random) {
    const int32_t fixed = static_cast<int32_t>(clamp(x, lowest, highest) * 16777216.0f);
    return (fixed + static_cast<int32_t>(random >> 8)) >> 24;
  }

 private:
  MEZZOTINT_SCALAR static float clamp(float x, float lowest, float highest) {
    const float number = x == x ? x : 0.0f;
    const float above = number < lowest ? lowest : number;
    return above > highest ? highest : above;
  }
};

}  // namespace mezzotint
