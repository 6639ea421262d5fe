#pragma once
#include "mezzotint/base/scalar.h"

namespace mezzotint {

/// bfloat16: the upper 16 bits of a float32, subnormals included. NaN follows IEEE hardware when encoding: quieted,
/// sign and upper payload kept; decoding changes no bit.
struct Bf16 {
  static constexpr int kExponentBits = 8;
  static constexpr int kMantissaBits = 7;
  static constexpr int32_t kMaxCode = 0x7F7F;
  static constexpr float kMax = __builtin_bit_cast(float, 0x7F7F0000);

  /// Nearest even; finite values at least half a step above the largest become inf.
  MEZZOTINT_SCALAR static uint32_t encode(float x) {
    const uint32_t bits = float_bits(x);
    return with_nan(bits, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
  /// Nearest even; everything beyond the largest value, inf included, becomes the largest value.
  MEZZOTINT_SCALAR static uint32_t encode_saturating(float x) {
    const uint32_t bits = float_bits(x);
    const int32_t a = static_cast<int32_t>(bits & kFloatMagnitude);
    const uint32_t clamped = (bits & 0x80000000u) | static_cast<uint32_t>(a < kMaxBits ? a : kMaxBits);
    return with_nan(bits, (clamped + 0x7FFF + (clamped >> 16 & 1)) >> 16);
  }
  /// One of the two neighbouring codes with expectation exactly x; saturates, inf included. `random` is uniform over
  /// 32 bits.
  MEZZOTINT_SCALAR static uint32_t encode_stochastic(float x, uint32_t random) {
    const uint32_t bits = float_bits(x);
    const int32_t a = static_cast<int32_t>(bits & kFloatMagnitude);
    const uint32_t clamped = (bits & 0x80000000u) | static_cast<uint32_t>(a < kMaxBits ? a : kMaxBits);
    return with_nan(bits, (clamped + (random >> 16)) >> 16);
  }
  MEZZOTINT_SCALAR static float decode(uint32_t code) { return float_from_bits(code << 16); }

 private:
  static constexpr int32_t kMaxBits = 0x7F7F0000;

  MEZZOTINT_SCALAR static uint32_t with_nan(uint32_t bits, uint32_t code) {
    const bool nan = static_cast<int32_t>(bits & kFloatMagnitude) > kFloatInfBits;
    return nan ? bits >> 16 | 0x40 : code;
  }
};

}  // namespace mezzotint
