#include "mezzotint/convert/lora_aware/extremes.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mezzotint::convert {
namespace {

/// `column` is that of the first value.
void keep_in_run(const float* other, int64_t size, int64_t column, int64_t count, float* values) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  for (const float* side : {static_cast<const float*>(values), other})
    for (int64_t i = 0; i < size; ++i) {
      if (!std::isfinite(side[i])) continue;
      low = std::min(low, side[i]);
      high = std::max(high, side[i]);
    }
  const auto rank = [&](float x) { return x == low || x == high ? std::abs(x) : -1.0f; };
  for (int64_t i = 0; i < size; ++i) {
    const float a = values[i], b = other[i];
    if (!std::isfinite(b)) continue;
    if (!std::isfinite(a)) {
      values[i] = b;
      continue;
    }
    const float of_a = rank(a), of_b = rank(b);
    if (of_b > of_a || (of_a < 0 && (column + i) % (count + 1) == count)) values[i] = b;
  }
}

}  // namespace

void keep_extremes(const float* other, int64_t rows, int64_t cols, int64_t run, int64_t count, float* values) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < cols; col += run)
      keep_in_run(other + row * cols + col, std::min(run, cols - col), col, count, values + row * cols + col);
}

}  // namespace mezzotint::convert
