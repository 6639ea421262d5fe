#include "mezzotint/kernel/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace mezzotint::kernel {
namespace {

struct Point {
  const char* name;
  Grid grid;
  std::vector<float> values;  // all magnitudes
};

std::vector<float> floats_of(int mantissa_bits, int min_exponent, float largest) {
  std::vector<float> out;
  for (int m = 0; m < 1 << mantissa_bits; ++m)
    out.push_back(std::ldexp(static_cast<float>(m), min_exponent - mantissa_bits));
  for (int e = min_exponent; std::ldexp(1.0f, e) <= largest; ++e)
    for (int m = 0; m < 1 << mantissa_bits; ++m) {
      const float x = std::ldexp(1.0f + std::ldexp(static_cast<float>(m), -mantissa_bits), e);
      if (x <= largest) out.push_back(x);
    }
  return out;
}

std::vector<Point> grids() {
  std::vector<float> integers;
  for (int i = 0; i <= 127; ++i) integers.push_back(static_cast<float>(i));
  return {{"int8", {23, 23, -127, 127}, integers},
          {"int4", {23, 23, -7, 7}, {0, 1, 2, 3, 4, 5, 6, 7}},
          {"e4m3", {3, -6, -448, 448}, floats_of(3, -6, 448)},
          {"e5m2", {2, -14, -57344, 57344}, floats_of(2, -14, 57344)},
          {"e2m1", {1, 0, -6, 6}, {0, 0.5f, 1, 1.5f, 2, 3, 4, 6}}};
}

/// By looking at every point; of two at the same distance, the one whose place in the list is even (an even mantissa).
float nearest(const std::vector<float>& magnitudes, float t) {
  size_t best = 0;
  for (size_t i = 1; i < magnitudes.size(); ++i) {
    const double now = std::abs(static_cast<double>(std::abs(t)) - static_cast<double>(magnitudes[i]));
    const double before = std::abs(static_cast<double>(std::abs(t)) - static_cast<double>(magnitudes[best]));
    if (now < before || (now == before && i % 2 == 0)) best = i;
  }
  return std::copysign(magnitudes[best], t);
}

struct Problem {
  static constexpr int64_t kColumns = 37, kRows = 48;
  std::vector<float> base, carried, coupling, inverse_pivot, scale, inverse_scale, change, pivot_energy, energy;
  std::vector<const float*> scales, inverse_scales;

  explicit Problem(float size) {
    std::mt19937 generator(4);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& x, int64_t count, float factor) {
      x.resize(static_cast<size_t>(count));
      for (float& value : x) value = normal(generator) * factor;
    };
    fill(base, kColumns * kRows, size);
    fill(carried, kColumns * kRows, size * 0.3f);
    fill(coupling, kColumns * kFeedbackColumns, 0.2f);
    fill(inverse_pivot, kColumns, 1.0f);
    fill(pivot_energy, kColumns, 1.0f);
    fill(scale, kRows, 1.0f);
    for (float& s : scale) s = std::exp2(std::round(s));
    scale[5] = 0;  // a row of zeros
    for (const float s : scale) inverse_scale.push_back(s == 0 ? 0 : 1 / s);
    change.assign(base.size(), 0);
    energy.assign(kRows, 1.0f);
    scales.assign(kColumns, scale.data());
    inverse_scales.assign(kColumns, inverse_scale.data());
  }
  FeedbackBlock block(const Grid& grid) {
    return {.columns = kColumns,
            .rows = kRows,
            .base_stride = kRows,
            .stride = kRows,
            .base = base.data(),
            .carried = carried.data(),
            .coupling = coupling.data(),
            .inverse_pivot = inverse_pivot.data(),
            .scale = scales.data(),
            .inverse_scale = inverse_scales.data(),
            .grid = grid,
            .change = change.data(),
            .pivot_energy = pivot_energy.data(),
            .energy = energy.data()};
  }
};

TEST(Feedback, RoundsToTheNearestPointOfEveryGrid) {
  for (const Point& point : grids())
    for (const bool feedback : {true, false})
      for (const bool of_change : {true, false}) {
        SCOPED_TRACE(testing::Message() << point.name << " feedback " << feedback << " of change " << of_change);
        Problem p(point.values.back() / 4);
        std::vector<float> expected_change(p.change.size()), expected_energy = p.energy;
        for (int64_t c = Problem::kColumns - 1; c >= 0; --c)
          for (int64_t r = 0; r < Problem::kRows; ++r) {
            const auto at = static_cast<size_t>(c * Problem::kRows + r), row = static_cast<size_t>(r);
            float sum = p.carried[at];
            for (int64_t q = Problem::kColumns - 1; q > c; --q)
              sum += expected_change[static_cast<size_t>(q * Problem::kRows + r)] *
                     p.coupling[static_cast<size_t>(c * kFeedbackColumns + q)];
            const float base = p.base[at], v = base - sum * p.inverse_pivot[static_cast<size_t>(c)];
            const float q = nearest(point.values, (feedback ? v : base) * p.inverse_scale[row]) * p.scale[row];
            expected_change[at] = q - base;
            float part = (q - v) * (q - v);
            if (of_change) part = part - (base - v) * (base - v);
            expected_energy[row] += part * p.pivot_energy[static_cast<size_t>(c)];
          }
        FeedbackBlock block = p.block(point.grid);
        block.feedback = feedback;
        block.energy_of_change = of_change;
        round_with_feedback(block);
        EXPECT_EQ(p.change, expected_change);
        EXPECT_EQ(p.energy, expected_energy);
      }
}

TEST(Feedback, CarriesErrorsOn) {
  const Grid grid{3, -6, -448, 448};
  Problem with(100), without(100);
  std::fill(without.coupling.begin(), without.coupling.end(), 0.0f);
  round_with_feedback(with.block(grid));
  round_with_feedback(without.block(grid));
  EXPECT_NE(with.change, without.change);
}

}  // namespace
}  // namespace mezzotint::kernel
