#include "mezzotint/convert/optimizers/smoothing.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "mezzotint/base/bf16.h"

namespace mezzotint::convert {
namespace {

constexpr double kMostExponent = 12;

}  // namespace

std::vector<float> smoothing_factors(std::span<const float> input_amax, std::span<const float> weight_amax,
                                     double alpha) {
  assert(input_amax.size() == weight_amax.size());
  const auto usable = [&](size_t j) {
    return input_amax[j] > 0 && weight_amax[j] > 0 && std::isfinite(input_amax[j]) && std::isfinite(weight_amax[j]);
  };
  const auto exponent = [&](size_t j) {
    return alpha * std::log2(double{input_amax[j]}) - (1 - alpha) * std::log2(double{weight_amax[j]});
  };
  double sum = 0;
  size_t count = 0;
  for (size_t j = 0; j < input_amax.size(); ++j)
    if (usable(j)) {
      sum += exponent(j);
      ++count;
    }
  std::vector<float> factors(input_amax.size(), 1.0f);
  for (size_t j = 0; j < factors.size(); ++j) {
    if (!usable(j)) continue;
    const double wanted = std::clamp(sum / static_cast<double>(count) - exponent(j), -kMostExponent, kMostExponent);
    factors[j] = Bf16::decode(Bf16::encode(static_cast<float>(std::exp2(wanted))));
  }
  return factors;
}

void smooth_moments(std::span<const float> factors, int64_t row0, int64_t rows, float* moments) {
  const auto cols = static_cast<int64_t>(factors.size());
  for (int64_t r = 0; r < rows; ++r) {
    const float factor = factors[static_cast<size_t>(row0 + r)];
    for (int64_t c = 0; c <= row0 + r; ++c) moments[r * cols + c] *= factor * factors[static_cast<size_t>(c)];
  }
}

}  // namespace mezzotint::convert
