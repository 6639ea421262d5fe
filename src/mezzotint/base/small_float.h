#pragma once
#include "mezzotint/base/scalar.h"

namespace mezzotint {

/// What the codes with the highest exponent mean.
enum class Specials : uint8_t {
  ieee,    ///< the highest exponent is inf (mantissa 0) or NaN
  fn,      ///< no inf; only the all-ones magnitude is NaN
  finite,  ///< every code is a number
};

/// A binary floating-point format of 16 bits or fewer: sign, E exponent bits with bias 2^(E-1) - 1, M mantissa bits,
/// and subnormals. A code is the sign bit over the magnitude; magnitudes are ordered like the values. Branch-free, so
/// that plain loops over these functions vectorize.
///
/// Common to all encoders: the sign bit is always copied, also of zeros, of values that round to zero and of NaN.
template <int E, int M, Specials S>
struct SmallFloat {
  static constexpr int kExponentBits = E;
  static constexpr int kMantissaBits = M;
  static constexpr int kBias = (1 << (E - 1)) - 1;
  static constexpr int kMinExponent = 1 - kBias;  ///< of the smallest normal value, 2^kMinExponent
  static constexpr int32_t kAllOnes = (1 << (E + M)) - 1;
  /// Code of the largest finite magnitude.
  static constexpr int32_t kMaxCode = S == Specials::ieee ? (((1 << E) - 1) << M) - 1
                                      : S == Specials::fn ? kAllOnes - 1
                                                          : kAllOnes;
  static constexpr int kShift = 23 - M;        ///< float32 mantissa bits that are dropped
  static constexpr int kRebias = 127 - kBias;  ///< difference of the exponent fields
  static constexpr int32_t kMinNormalBits = (kMinExponent + 127) << 23;
  static constexpr int32_t kMaxBits = (kMaxCode << kShift) + (kRebias << 23);
  /// Smallest positive value, and the distance of neighbours below 2^kMinExponent.
  static constexpr float kStep = __builtin_bit_cast(float, (kMinExponent - M + 127) << 23);
  static constexpr float kMax = __builtin_bit_cast(float, kMaxBits);
  /// In the subnormal range stochastic rounding sees x / kStep with this many fraction bits; the rest is cut off.
  static constexpr int kFixedBits = 31 - M;

  /// Nearest, ties to the even code. Beyond the largest value (at least half a step above it): inf, or NaN where the
  /// format has no inf; formats that are finite saturate. NaN becomes the all-ones magnitude (finite formats: the
  /// largest value).
  MEZZOTINT_SCALAR static uint32_t encode(float x) {
    return with_sign(x, nearest_magnitude<(S == Specials::finite ? kMaxCode : kMaxCode + 1)>(magnitude(x)));
  }

  /// As encode, but everything beyond the largest value, inf included, becomes the largest value.
  MEZZOTINT_SCALAR static uint32_t encode_saturating(float x) {
    return with_sign(x, nearest_magnitude<kMaxCode>(magnitude(x)));
  }

  /// One of the two neighbouring codes, the upper magnitude with probability (|x| - lower) / (upper - lower); a value
  /// that is a code stays. `random` is uniform over 32 bits. The expectation is exactly x at 2^kMinExponent and above,
  /// and below it is smaller in magnitude than x by less than kStep * 2^-kFixedBits. Saturates; NaN as in encode.
  MEZZOTINT_SCALAR static uint32_t encode_stochastic(float x, uint32_t random) {
    const int32_t bits = magnitude(x);
    const int32_t a = bits < kMaxBits ? bits : kMaxBits;
    const uint32_t normal = (static_cast<uint32_t>(a) + (random >> (32 - kShift)) - (kRebias << 23)) >> kShift;
    // Meaningless above the subnormal range, where the bound keeps the conversion defined.
    const float low = float_from_bits(static_cast<uint32_t>(a < kMinNormalBits ? a : kMinNormalBits - 1));
    const uint32_t fixed = static_cast<uint32_t>(static_cast<int32_t>(low * kFixedScale));
    const uint32_t subnormal = (fixed + (random >> (32 - kFixedBits))) >> kFixedBits;
    return with_sign(x, with_nan(bits, static_cast<int32_t>(a < kMinNormalBits ? subnormal : normal)));
  }

  /// The exact value. NaN codes give a quiet NaN with the code's sign and mantissa.
  MEZZOTINT_SCALAR static float decode(uint32_t code) {
    const int32_t m = static_cast<int32_t>(code) & kAllOnes;
    const int32_t normal = (m << kShift) + (kRebias << 23);
    // 2^kMinExponent * (1 + mantissa) - 2^kMinExponent is the value of a subnormal code. There `normal` is larger;
    // everywhere else this is.
    const float above = float_from_bits(static_cast<uint32_t>(normal + (1 << 23)));
    const float subnormal = above - float_from_bits(static_cast<uint32_t>(kMinNormalBits));
    int32_t bits = smaller(normal, static_cast<int32_t>(float_bits(subnormal)));
    if constexpr (S == Specials::ieee) {
      bits |= m > kMaxCode ? kFloatInfBits : 0;
      bits |= m > kMaxCode + 1 ? kQuietBit : 0;
    }
    if constexpr (S == Specials::fn) bits |= m > kMaxCode ? kFloatInfBits : 0;
    return float_from_bits(static_cast<uint32_t>(bits) | (code >> (E + M)) << 31);
  }

 private:
  static constexpr int32_t kQuietBit = 0x00400000;
  static constexpr float kFixedScale = __builtin_bit_cast(float, (kFixedBits - (kMinExponent - M) + 127) << 23);
  /// Adding it to |x| < 2^kMinExponent leaves round(|x| / kStep) in the low mantissa bits.
  static constexpr int32_t kMagicBits = (23 + kMinExponent - M + 127) << 23;

  MEZZOTINT_SCALAR static int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }
  MEZZOTINT_SCALAR static int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }
  MEZZOTINT_SCALAR static int32_t magnitude(float x) { return static_cast<int32_t>(float_bits(x)) & kFloatMagnitude; }

  /// Code of the float32 magnitude `a`, at most Limit unless NaN.
  template <int32_t Limit>
  MEZZOTINT_SCALAR static int32_t nearest_magnitude(int32_t a) {
    constexpr int32_t kLimitBits = (Limit << kShift) + (kRebias << 23);
    const auto u = static_cast<uint32_t>(smaller(larger(a, kMinNormalBits), kLimitBits));
    const uint32_t normal = (u + ((u >> kShift) & 1) + ((1u << (kShift - 1)) - 1) - (kRebias << 23)) >> kShift;
    const float x = float_from_bits(static_cast<uint32_t>(a));
    const float magic = float_from_bits(static_cast<uint32_t>(kMagicBits));
    const int32_t subnormal = static_cast<int32_t>(float_bits(x + magic)) - kMagicBits;
    // Up to 2^kMinExponent `normal` is the code of that bound, above it round(x / kStep) is never the smaller one.
    return with_nan(a, smaller(static_cast<int32_t>(normal), subnormal));
  }

  MEZZOTINT_SCALAR static int32_t with_nan(int32_t a, int32_t code) {
    return S == Specials::finite ? code : code | (a > kFloatInfBits ? kAllOnes : 0);
  }
  MEZZOTINT_SCALAR static uint32_t with_sign(float x, int32_t code) {
    return static_cast<uint32_t>(code) | (float_bits(x) >> 31) << (E + M);
  }
};

}  // namespace mezzotint
