#pragma once
#include "mezzotint/base/small_float.h"

namespace mezzotint {

/// IEEE binary16: 1 sign, 5 exponent (bias 15), 10 mantissa bits. Largest value 65504 = 0x7BFF, subnormal step 2^-24,
/// inf = 0x7C00. NaN follows IEEE hardware in both directions: quieted, sign and upper payload kept.
struct Fp16 : SmallFloat<5, 10, Specials::ieee> {
  using Base = SmallFloat<5, 10, Specials::ieee>;

  /// Nearest even; finite values of at least 65520 become inf.
  MEZZOTINT_SCALAR static uint32_t encode(float x) { return with_payload(x, Base::encode(x)); }
  /// Nearest even; everything beyond 65504, inf included, becomes 65504.
  MEZZOTINT_SCALAR static uint32_t encode_saturating(float x) { return with_payload(x, Base::encode_saturating(x)); }
  /// As Base::encode_stochastic: saturates, inf included.
  MEZZOTINT_SCALAR static uint32_t encode_stochastic(float x, uint32_t random) {
    return with_payload(x, Base::encode_stochastic(x, random));
  }

 private:
  MEZZOTINT_SCALAR static uint32_t with_payload(float x, uint32_t code) {
    const uint32_t bits = float_bits(x);
    const bool nan = static_cast<int32_t>(bits & kFloatMagnitude) > kFloatInfBits;
    return nan ? (bits >> 31) << 15 | 0x7E00 | (bits >> 13 & 0x1FF) : code;
  }
};

}  // namespace mezzotint
