#pragma once
#include "mezzotint/base/scalar.h"

namespace mezzotint {

/// E8M0 (OCP MX): a power of two, code b is 2^(b - 127), from 2^-127 to 2^127; 0xFF is NaN. No sign, no zero.
/// Encoders ignore the sign; what is below 2^-127 (zero included) becomes code 0 and what is above 2^127 code 254, inf
/// included; NaN becomes 0xFF.
struct E8m0 {
  /// Largest power of two that is not above |x|.
  MEZZOTINT_SCALAR static uint32_t encode_floor(float x) { return add_and_truncate(x, 0); }
  /// Smallest power of two that is not below |x|.
  MEZZOTINT_SCALAR static uint32_t encode_ceil(float x) { return add_and_truncate(x, 0x7FFFFF); }
  /// Nearest by distance; a tie (1.5 * 2^k) goes up.
  MEZZOTINT_SCALAR static uint32_t encode(float x) { return add_and_truncate(x, 0x400000); }
  /// One of the two neighbouring powers of two with expectation exactly |x| inside [2^-127, 2^127].
  MEZZOTINT_SCALAR static uint32_t encode_stochastic(float x, uint32_t random) {
    return add_and_truncate(x, random >> 9);
  }
  MEZZOTINT_SCALAR static float decode(uint32_t code) {
    const uint32_t bits = code == 0 ? 0x00400000u : code << 23;
    return float_from_bits(code == 0xFF ? 0x7FC00000u : bits);
  }

 private:
  /// Writes |x| as 2^k * (1 + fraction / 2^23) with the code above the fraction, adds below it and truncates.
  MEZZOTINT_SCALAR static uint32_t add_and_truncate(float x, uint32_t addend) {
    const uint32_t a = float_bits(x) & kFloatMagnitude;
    // [2^-127, 2^-126) is subnormal in float32: its leading one is bit 22.
    const uint32_t low = a < 0x400000u ? 0 : (a - 0x400000u) << 1;
    const uint32_t split = a < 0x800000u ? low : a;
    const uint32_t code = (split + addend) >> 23;
    const uint32_t bounded = code < 254 ? code : 254;
    return a > static_cast<uint32_t>(kFloatInfBits) ? 0xFF : bounded;
  }
};

}  // namespace mezzotint
