#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_lanes.h"

namespace mezzotint::kernel {
namespace {

constexpr float kTop = 7.0f;

/// Up to 16 values of a row with their weights; what lies beyond the row is 0 and has no error.
struct Run {
  const float* x;
  const float* h;  // null: 1
  alignas(64) float tail[2][kLanes];

  [[gnu::always_inline]] Run(const float* row, const float* weight, int64_t c, int64_t cols) {
    x = row + c;
    h = weight == nullptr ? nullptr : weight + c;
    if (cols - c >= kLanes) return;
    for (int64_t i = 0; i < kLanes; ++i) {
      tail[0][i] = c + i < cols ? row[c + i] : 0.0f;
      tail[1][i] = c + i < cols && weight != nullptr ? weight[c + i] : 0.0f;
    }
    x = tail[0];
    h = weight == nullptr ? nullptr : tail[1];
  }
};

[[gnu::always_inline]] inline Lanes magnitude(const Lanes& a) {
  return each(
      a, [](const Register& x) __attribute__((always_inline)) { return x < 0.0f ? -x : x; });
}
/// Magnitude of the code of |x| at the scale 1 / inverse.
[[gnu::always_inline]] inline Lanes code(const Lanes& x, float inverse) {
  return round_to_even(smaller_of(x * inverse, kTop));
}

/// The factor with the least error over every step-th run. All in units of the absmax scale, 1 / inverse.
[[gnu::noinline]] float best_factor(const float* row, int64_t cols, const float* weight, int64_t step, float inverse) {
  Lanes sums[kInt4Factors] = {};
  for (int64_t c = 0; c < cols; c += step * kLanes) {
    const Run run(row, weight, c, cols);
    const Lanes x = magnitude(load_lanes(run.x) * inverse);
    for (int j = 0; j < kInt4Factors; ++j) {
      const Lanes e = x - code(x, 1.0f / kInt4Factor[j]) * kInt4Factor[j];
      sums[j] = sums[j] + (run.h == nullptr ? e * e : e * e * load_lanes(run.h));
    }
  }
  int best = 0;
  float least = add_lanes(sums[0]);
  for (int j = 1; j < kInt4Factors; ++j) {
    const float error = add_lanes(sums[j]);
    if (!(error < least)) continue;
    best = j;
    least = error;
  }
  return kInt4Factor[best];
}

/// Least-squares scale of the codes at `factor`, over the absmax scale. Rounding to nearest again at that scale never
/// gives a larger error than before. NaN, inf and no codes at all leave the factor.
[[gnu::noinline]] float refine(const float* row, int64_t cols, const float* weight, float inverse, float factor) {
  Lanes values{}, squares{};
  for (int64_t c = 0; c < cols; c += kLanes) {
    const Run run(row, weight, c, cols);
    const Lanes x = magnitude(load_lanes(run.x) * inverse);
    const Lanes q = code(x, 1.0f / factor);
    const Lanes weighted = run.h == nullptr ? q : q * load_lanes(run.h);
    values = values + weighted * x;
    squares = squares + weighted * q;
  }
  const float refined = add_lanes(values) / add_lanes(squares);
  return refined > 0.25f && refined < 1.5f ? refined : factor;
}

}  // namespace

template <>
void search_int4_rows<kIsa>(const Source& x, const float* column_weight, int64_t step, float floor, float* scales) {
  for (int64_t r = 0; r < x.rows; ++r) {
    if (!(scales[r] > floor)) continue;
    const float* row = static_cast<const float*>(x.data) + r * x.stride;
    const float inverse = 1.0f / scales[r];
    const float factor = best_factor(row, x.cols, column_weight, step, inverse);
    const float scale = scales[r] * refine(row, x.cols, column_weight, inverse, factor);
    if (scale > floor) scales[r] = scale;
  }
}

}  // namespace mezzotint::kernel
