#pragma once
#include <cstdint>

#include "mezzotint/kernel/isa.h"

/// How far one run of float32 values is from another: what every report of errors adds up.
namespace mezzotint::kernel {

/// Bins of magnitudes, two an octave: bin 0 holds everything below 2^kFirstExponent (zeros too), the last one
/// everything from 2^(kFirstExponent + kOctaves) on, and between them bin 1 + 2k starts at 2^(kFirstExponent + k), the
/// next at 1.5 times that. The edges are fixed, so counts of different runs add up.
inline constexpr int kFirstExponent = -40;
inline constexpr int kOctaves = 64;
inline constexpr int kMagnitudeBins = 2 * kOctaves + 2;

/// Elements where either side is not finite are counted and take no other part.
struct ErrorSums {
  double a2 = 0;         ///< sum of a^2
  double b2 = 0;         ///< sum of b^2
  double ab = 0;         ///< sum of a b
  double e2 = 0;         ///< sum of (b - a)^2
  double max_error = 0;  ///< max |b - a|, rounded to float32
  double max_a = 0;      ///< max |a|
  uint64_t non_finite = 0;
  uint64_t zeroed = 0;                   ///< elements where a is not zero and b is
  uint64_t values[kMagnitudeBins] = {};  ///< of |a|
  uint64_t errors[kMagnitudeBins] = {};  ///< of |b - a|, rounded to float32
};

/// Adds n elements to the sums. Sums are in double and their order depends on n alone: the same at every level.
void add_errors(const float* a, const float* b, int64_t n, ErrorSums& sums);

// One level of the above (error_sums.isa.cpp).
template <Isa I>
void add_errors(const float* a, const float* b, int64_t n, ErrorSums& sums);

}  // namespace mezzotint::kernel
