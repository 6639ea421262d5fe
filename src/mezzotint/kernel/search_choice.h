#pragma once
// The choices of search.h from sums, for search.cpp and each level of search.isa.cpp alike.
#include "mezzotint/kernel/search.h"

namespace mezzotint::kernel {
namespace {

/// Error of factor j. sums: kScaleStats values, as int8_scale_stats makes them.
[[gnu::always_inline]] inline double factor_error(const double* sums, int j, ScaleSearch search) {
  if (search == ScaleSearch::full || j == 0) return sums[j];
  const auto factor = static_cast<double>(kScaleFactor[j]);
  const double rounding = factor * factor / 12 * sums[kScaleFactors];
  return sums[j] + (rounding < sums[0] ? rounding : sums[0]);
}

/// Index of the factor with the least error among first ... last; the first of equals.
[[gnu::always_inline]] inline int best_factor(const double* sums, ScaleSearch search, int first = 0,
                                              int last = kScaleFactors - 1) {
  int best = first;
  for (int j = first + 1; j <= last; ++j)
    if (factor_error(sums, j, search) < factor_error(sums, best, search)) best = j;
  return best;
}

/// moments: error, <q, w>, <q, q>.
[[gnu::always_inline]] inline double least_squares(const double* moments) {
  return moments[1] > 0 && moments[2] > 0 ? moments[1] / moments[2] : 1;
}

}  // namespace
}  // namespace mezzotint::kernel
