#include "mezzotint/convert/report/meter.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace mezzotint::convert {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Counts and maxima: exact in any order.
void add_exact(const kernel::ErrorSums& from, kernel::ErrorSums& to) {
  to.max_error = std::max(to.max_error, from.max_error);
  to.max_a = std::max(to.max_a, from.max_a);
  to.non_finite += from.non_finite;
  to.zeroed += from.zeroed;
  for (int bin = 0; bin < kernel::kMagnitudeBins; ++bin) {
    to.values[bin] += from.values[bin];
    to.errors[bin] += from.errors[bin];
  }
}

template <class From, class To>
void add_sums(const From& from, To& to) {
  to.a2 += from.a2;
  to.b2 += from.b2;
  to.ab += from.ab;
  to.e2 += from.e2;
}

}  // namespace

double MeasuredErrors::relative_error() const {
  if (e2 == 0) return 0;
  return a2 > 0 ? std::sqrt(e2 / a2) : kInfinite;
}

double MeasuredErrors::sqnr_db() const {
  if (e2 == 0) return kInfinite;
  return a2 > 0 ? 10 * std::log10(a2 / e2) : -kInfinite;
}

double MeasuredErrors::cosine() const {
  if (a2 == 0 && b2 == 0) return 1;
  return a2 > 0 && b2 > 0 ? ab / std::sqrt(a2 * b2) : 0;
}

double MeasuredErrors::rms() const {
  const uint64_t finite = elements - non_finite;
  return finite > 0 ? std::sqrt(a2 / static_cast<double>(finite)) : 0;
}

void MeasuredErrors::add(const MeasuredErrors& other) {
  elements += other.elements;
  add_sums(other, *this);
  add_exact(other, *this);
}

double bin_start(int bin) {
  if (bin <= 0) return 0;
  const int half_octaves = bin - 1;
  return std::ldexp(half_octaves % 2 == 0 ? 1.0 : 1.5, kernel::kFirstExponent + half_octaves / 2);
}

LayerMeter::LayerMeter(size_t tiles) : tiles_(tiles) {}

void LayerMeter::add(size_t tile, const float* source, const float* decoded, uint64_t count) {
  assert(tile < tiles_.size());
  kernel::ErrorSums sums;
  kernel::add_errors(source, decoded, static_cast<int64_t>(count), sums);
  add_sums(sums, tiles_[tile]);
  const std::lock_guard lock(mutex_);
  shared_.elements += count;
  add_exact(sums, shared_);
}

MeasuredErrors LayerMeter::result() const {
  MeasuredErrors result = shared_;
  for (const TileSums& tile : tiles_) add_sums(tile, result);
  return result;
}

}  // namespace mezzotint::convert
