#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

/// Histograms of magnitudes that merge by addition: the bins are the same everywhere.
///
/// Bin 0 holds |x| < 2^-40 (zero included), bin 513 holds |x| >= 2^24; between them every octave has eight bins of
/// equal width: bin 1 + 8 * (e + 40) + m holds 2^e * (1 + m/8) <= |x| < 2^e * (1 + (m+1)/8). So a bin is an exponent
/// and the three highest bits of a mantissa, exactly, without a logarithm.
namespace mezzotint::convert::histogram {

inline constexpr int kLeastExponent = -40, kMostExponent = 24;
inline constexpr int kBins = 8 * (kMostExponent - kLeastExponent) + 2;

/// Bin of a finite value.
inline int bin(float value) {
  const auto bits = static_cast<int>(std::bit_cast<uint32_t>(value) << 1 >> 21);  // exponent and three bits
  return std::clamp(bits - 8 * (127 + kLeastExponent) + 1, 0, kBins - 1);
}

/// Least magnitude of a bin; bin 0 starts at 0.
inline double floor_of(int bin) {
  if (bin == 0) return 0;
  return std::ldexp(1.0 + ((bin - 1) % 8) / 8.0, kLeastExponent + (bin - 1) / 8);
}

/// The magnitude that `percent` of the values do not exceed: exact to a bin, linear within it, at most `amax`.
double percentile(std::span<const int64_t> counts, double percent, double amax);

}  // namespace mezzotint::convert::histogram
