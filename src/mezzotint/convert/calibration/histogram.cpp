#include "mezzotint/convert/calibration/histogram.h"

namespace mezzotint::convert::histogram {

double percentile(std::span<const int64_t> counts, double percent, double amax) {
  double total = 0;
  for (const int64_t count : counts) total += static_cast<double>(count);
  const double wanted = percent / 100 * total;
  double below = 0;
  for (int i = 0; i < kBins; ++i) {
    const auto count = static_cast<double>(counts[static_cast<size_t>(i)]);
    if (count > 0 && below + count >= wanted) {
      const double low = std::min(floor_of(i), amax);
      const double high = i + 1 < kBins ? std::min(floor_of(i + 1), amax) : amax;
      return low + (high - low) * (wanted - below) / count;
    }
    below += count;
  }
  return amax;
}

}  // namespace mezzotint::convert::histogram
