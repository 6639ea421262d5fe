#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

/// Independent definition of the small float formats: values from the bit fields by ldexp in double, encoding by
/// comparing with the midpoints of the sorted values. Shares no code with src/.
namespace mezzotint::test {

struct FloatSpec {
  int exponent_bits;
  int mantissa_bits;
  bool has_inf;  ///< IEEE: the top exponent is inf or NaN
  bool has_nan;  ///< without has_inf: only the all-ones magnitude is NaN

  uint32_t magnitudes() const { return 1u << (exponent_bits + mantissa_bits); }
  uint32_t sign() const { return magnitudes(); }
  /// Code of the largest finite magnitude.
  uint32_t max_code() const {
    if (has_inf) return magnitudes() - (1u << mantissa_bits) - 1;
    return has_nan ? magnitudes() - 2 : magnitudes() - 1;
  }
  /// Value of a magnitude code as if no code were special: the value after the largest is where the next would be.
  double raw(uint32_t code) const {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const uint32_t exponent = code >> mantissa_bits;
    const double fraction = std::ldexp(static_cast<double>(code & ((1u << mantissa_bits) - 1)), -mantissa_bits);
    if (exponent == 0) return std::ldexp(fraction, 1 - bias);
    return std::ldexp(1 + fraction, static_cast<int>(exponent) - bias);
  }
  /// Value of a whole code; NaN and inf where it is one.
  double value(uint32_t code) const {
    const uint32_t m = code & (magnitudes() - 1);
    double v = raw(m);
    if (m > max_code()) v = has_inf && m == max_code() + 1 ? std::numeric_limits<double>::infinity() : std::nan("");
    return (code & sign()) != 0 ? -v : v;
  }
  /// Midpoint above a magnitude code: at it the even of the two codes is nearest.
  double midpoint(uint32_t code) const { return (raw(code) + raw(code + 1)) / 2; }
};

/// The float32 magnitudes that round to one magnitude code: bit patterns [first, last].
struct Interval {
  uint32_t first, last, code;
};

inline uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

/// Every finite float32 magnitude and inf, cut at the midpoints. `overflow` is the code of what lies beyond the
/// largest.
inline std::vector<Interval> nearest_even_intervals(const FloatSpec& spec, uint32_t overflow) {
  constexpr uint32_t kInf = 0x7F800000;
  std::vector<Interval> intervals;
  uint32_t first = 0;
  bool exact = true;
  for (uint32_t code = 0; code <= spec.max_code(); ++code) {
    const double middle = spec.midpoint(code);  // a float32 in every format here
    exact = exact && static_cast<double>(static_cast<float>(middle)) == middle;
    const uint32_t last = bits_of(static_cast<float>(middle)) - code % 2;
    intervals.push_back({first, last, code});
    first = last + 1;
  }
  intervals.push_back({first, kInf, overflow});
  if (!exact) throw std::logic_error("a midpoint is no float32");
  return intervals;
}

}  // namespace mezzotint::test
