#include "mezzotint/kernel/search.h"

#include <numeric>

#include "kernel/matrix.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::kernel::test {
namespace {

constexpr float kFloor = 1e-30f;

struct BlockSize {
  int64_t rows, cols;
};
constexpr BlockSize kBlocks[] = {{1, 1}, {1, 128}, {3, 7}, {64, 64}, {128, 128}, {1000, 1000}};

std::vector<float> absmax_scales(Matrix& m, DType dtype, BlockSize block) {
  const int64_t across = (m.cols() + block.cols - 1) / block.cols;
  std::vector<float> scales(static_cast<size_t>((m.rows() + block.rows - 1) / block.rows * across));
  amax_blocks(m.source(dtype), block.rows, block.cols, scales.data(), across);
  for (float& s : scales) s = std::max(s / 127.0f, kFloor);
  return scales;
}

/// Plain definition in float64: sum h (|w| - s min(rint(|w| / s), 127))^2 over finite elements of a rectangle.
double error_of(Matrix& m, DType dtype, float scale, const float* weight, int64_t r0 = 0, int64_t r1 = 1 << 30,
                int64_t c0 = 0, int64_t c1 = 1 << 30) {
  double sum = 0;
  const auto s = static_cast<double>(scale);
  for (int64_t r = r0; r < std::min(r1, m.rows()); ++r)
    for (int64_t c = c0; c < std::min(c1, m.cols()); ++c) {
      const double w = std::fabs(static_cast<double>(value(m, dtype, r, c)));
      if (!std::isfinite(w)) continue;
      const double e = w - s * std::min(std::nearbyint(w / s), 127.0);
      sum += e * e * (weight == nullptr ? 1.0 : static_cast<double>(weight[c]));
    }
  return sum;
}

std::vector<float> random_weights(int64_t cols, std::mt19937_64& rng) {
  std::vector<float> weight(static_cast<size_t>(cols));
  std::exponential_distribution<float> draw(1);
  for (float& h : weight) h = rng() % 10 == 0 ? 0 : draw(rng);
  return weight;
}

Matrix gauss(int64_t rows, int64_t cols, std::mt19937_64& rng) {
  Matrix m(rows, cols, 4);
  std::normal_distribution<float> normal(0, 0.02f);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) m.set<float>(r, c, normal(rng));
  return m;
}

float searched(Matrix& m, const float* weight, ScaleSearch search) {
  std::vector<float> scale = absmax_scales(m, DType::f32, {m.rows(), m.cols()});
  search_int8_blocks(m.source(DType::f32), m.rows(), m.cols(), weight, search, kFloor, scale.data(), 1);
  return scale[0];
}

TEST(ScaleSearchOfBlocks, SameAtEveryLevelAndNeverBelowTheFloor) {
  auto rng = test_rng();
  for (const DType dtype : kSourceTypes)
    for (const Shape2& s : awkward_shapes())
      for (const Fill kind : {Fill::weights, Fill::any_bits})
        for (const BlockSize block : kBlocks) {
          if (s.rows == 0) continue;
          Matrix m(s.rows, s.cols, bytes_of(dtype), s.gap, s.offset);
          fill(m, dtype, kind, rng);
          const std::vector<float> start = absmax_scales(m, dtype, block), weight = random_weights(s.cols, rng);
          Matrix blank(1, static_cast<int64_t>(start.size()), 4);
          if (!start.empty()) std::memcpy(blank.data(), start.data(), start.size() * 4);
          for (const ScaleSearch search : {ScaleSearch::fast, ScaleSearch::full})
            for (const float* h : {static_cast<const float*>(nullptr), weight.data()}) {
              Matrix got = same_at_every_level(blank, [&](Matrix& out) {
                search_int8_blocks(m.source(dtype), block.rows, block.cols, h, search, kFloor,
                                   reinterpret_cast<float*>(out.data()), (s.cols + block.cols - 1) / block.cols);
              });
              for (size_t i = 0; i < start.size(); ++i) {
                const auto scale = got.get<float>(0, static_cast<int64_t>(i));
                ASSERT_TRUE(std::isfinite(scale) && scale >= kFloor && scale <= start[i] * 1.5f) << start[i];
                if (start[i] == kFloor) {
                  ASSERT_EQ(scale, kFloor);
                }
              }
            }
        }
}

TEST(ScaleSearchOfBlocks, FullIsNoWorseThanAnyFactor) {
  auto rng = test_rng();
  size_t absmax_is_worse = 0;
  for (const DType dtype : kSourceTypes)
    for (const BlockSize block : {BlockSize{40, 100}, {1, 300}, {9, 31}})
      for (const bool weighted : {false, true}) {
        Matrix m(87, 311, bytes_of(dtype), 5, 3);
        fill(m, dtype, Fill::weights, rng);
        const std::vector<float> weight = random_weights(m.cols(), rng);
        const float* h = weighted ? weight.data() : nullptr;
        const std::vector<float> start = absmax_scales(m, dtype, block);
        std::vector<float> scales = start;
        const int64_t across = (m.cols() + block.cols - 1) / block.cols;
        search_int8_blocks(m.source(dtype), block.rows, block.cols, h, ScaleSearch::full, kFloor, scales.data(),
                           across);
        for (size_t i = 0; i < scales.size(); ++i) {
          const int64_t r = static_cast<int64_t>(i) / across * block.rows,
                        c = static_cast<int64_t>(i) % across * block.cols;
          const auto error = [&](float s) { return error_of(m, dtype, s, h, r, r + block.rows, c, c + block.cols); };
          double least = error(start[i]);
          for (const float factor : kScaleFactor) least = std::min(least, error(start[i] * factor));
          // 2^-24 per operation and element, and ties that fall to the other side, change an error by less than this.
          ASSERT_LE(error(scales[i]), least * 1.0005 + 1e-30);
          absmax_is_worse += error(start[i]) > least * 1.0005 + 1e-30;
        }
      }
  EXPECT_GT(absmax_is_worse, 50u) << "control MISSED: absmax alone would pass";
}

TEST(ScaleSearchOfBlocks, FastFindsMostOfTheGain) {
  auto rng = test_rng();
  for (int i = 0; i < 8; ++i) {
    Matrix m = gauss(128, 128, rng);
    const double absmax = error_of(m, DType::f32, absmax_scales(m, DType::f32, {128, 128})[0], nullptr);
    const double fast = error_of(m, DType::f32, searched(m, nullptr, ScaleSearch::fast), nullptr);
    const double full = error_of(m, DType::f32, searched(m, nullptr, ScaleSearch::full), nullptr);
    EXPECT_LE(full, fast * 1.0005);
    EXPECT_LE(fast, absmax);
    EXPECT_LE(absmax - full, 0.03 * absmax + (absmax - fast)) << i;
  }
}

// A search from a part of the elements must not be fooled by what the part does not show.
TEST(ScaleSearchOfBlocks, FastIsNoWorseThanAbsmaxWithOutliers) {
  auto rng = test_rng();
  size_t improved = 0;
  for (const int count : {1, 2, 4, 20, 200, 2000})
    for (const float size : {2.0f, 5.0f, 20.0f, 300.0f, 10000.0f})
      for (const float spread : {0.0f, 0.5f, 0.95f}) {
        Matrix m = gauss(128, 128, rng);
        for (int k = 0; k < count; ++k) {
          const float share = 1 - spread * static_cast<float>(rng() % 1000) / 1000;
          m.set<float>(static_cast<int64_t>(rng() % 128), static_cast<int64_t>(rng() % 128), 0.06f * size * share);
        }
        const double absmax = error_of(m, DType::f32, absmax_scales(m, DType::f32, {128, 128})[0], nullptr);
        const double fast = error_of(m, DType::f32, searched(m, nullptr, ScaleSearch::fast), nullptr);
        EXPECT_LE(fast, absmax * 1.01) << count << " outliers of " << size << " down to " << spread;
        improved += fast < absmax * 0.99;
      }
  EXPECT_GT(improved, 5u);
}

TEST(ScaleSearchOfBlocks, WhatLiesOnTheGridStaysThere) {
  auto rng = test_rng();
  for (const ScaleSearch search : {ScaleSearch::fast, ScaleSearch::full}) {
    Matrix m = gauss(128, 128, rng);
    const float scale = 0x1p-9f;
    for (int64_t r = 0; r < 128; ++r)
      for (int64_t c = 0; c < 128; ++c)
        m.set<float>(r, c, scale * std::nearbyint(std::clamp(m.get<float>(r, c) / scale * 4, -127.0f, 127.0f)));
    m.set<float>(5, 6, 127 * scale);
    EXPECT_EQ(searched(m, nullptr, search), scale);
  }
}

TEST(ScaleSearchOfBlocks, ColumnsWithoutWeightMayBeClipped) {
  auto rng = test_rng();
  for (const ScaleSearch search : {ScaleSearch::fast, ScaleSearch::full}) {
    Matrix m = gauss(128, 128, rng);
    for (int64_t r = 0; r < 128; ++r) m.set<float>(r, 77, m.get<float>(r, 77) * 4);
    std::vector<float> weight(128, 1.0f);
    weight[77] = 0;
    const float plain = searched(m, nullptr, search), weighted = searched(m, weight.data(), search);
    EXPECT_LT(weighted, plain);
    EXPECT_LT(error_of(m, DType::f32, weighted, weight.data()), 0.5 * error_of(m, DType::f32, plain, weight.data()));
    // All columns alike change nothing.
    weight.assign(128, 2.0f);
    EXPECT_EQ(searched(m, weight.data(), search), plain);
  }
}

TEST(ScaleSearchOfBlocks, FastLeavesSmallBlocksAlone) {
  auto rng = test_rng();
  Matrix m = gauss(64, 128, rng), smaller = gauss(63, 128, rng);
  EXPECT_LT(searched(m, nullptr, ScaleSearch::fast), absmax_scales(m, DType::f32, {64, 128})[0]);
  EXPECT_EQ(searched(smaller, nullptr, ScaleSearch::fast), absmax_scales(smaller, DType::f32, {63, 128})[0]);
}

std::vector<double> sum_rows(const std::vector<float>& rows, int count) {
  std::vector<double> sums(static_cast<size_t>(count));
  for (size_t i = 0; i < rows.size(); ++i) sums[i % sums.size()] += static_cast<double>(rows[i]);
  return sums;
}

/// f(rows of m, number of the first, their maxima, where their results go) for so many rows at once; the results.
template <class F>
std::vector<float> in_parts(Matrix& m, int per_row, int64_t rows_at_once, F f) {
  std::vector<float> out(static_cast<size_t>(m.rows() * per_row)), amax(static_cast<size_t>(m.rows()));
  amax_rows(m.source(DType::f32), amax.data());
  for (int64_t r = 0; r < m.rows(); r += rows_at_once) {
    Source part = m.source(DType::f32);
    part.data = m.at(r, 0);
    part.rows = std::min(rows_at_once, m.rows() - r);
    f(part, r, amax.data() + r, out.data() + r * per_row);
  }
  return out;
}

std::vector<float> stats(Matrix& m, float scale, const float* weight, ScaleSearch search, int64_t rows_at_once) {
  return in_parts(m, kScaleStats, rows_at_once, [&](const Source& part, int64_t r, const float* amax, float* out) {
    int8_scale_stats(part, r, scale, amax, weight, search, out);
  });
}

std::vector<float> row_moments(Matrix& m, float scale, const float* weight, ScaleSearch search, int64_t rows_at_once) {
  return in_parts(m, kScaleMoments, rows_at_once, [&](const Source& part, int64_t r, const float* amax, float* out) {
    int8_scale_moments(part, r, scale, amax, weight, search, out);
  });
}

TEST(ScaleSearchOfAWeight, SameAtEveryLevelAndSplit) {
  auto rng = test_rng();
  Matrix m = gauss(37, 333, rng);
  const std::vector<float> weight = random_weights(m.cols(), rng);
  const float scale = absmax_scales(m, DType::f32, {37, 333})[0];
  for (const ScaleSearch search : {ScaleSearch::fast, ScaleSearch::full})
    for (const float* h : {static_cast<const float*>(nullptr), weight.data()}) {
      const std::vector<float> whole = stats(m, scale, h, search, 37);
      for (const Isa isa : enabled_isas()) {
        const ScopedIsaCap cap(isa);
        EXPECT_EQ(stats(m, scale, h, search, 37), whole) << name(isa);
        EXPECT_EQ(stats(m, scale, h, search, 5), whole) << name(isa);
        const std::vector<float> moments = row_moments(m, scale, h, search, 37);
        EXPECT_EQ(row_moments(m, scale, h, search, 5), moments) << name(isa);
        const ScopedIsaCap scalar(Isa::scalar);
        EXPECT_EQ(row_moments(m, scale, h, search, 37), moments) << name(isa);
      }
    }
}

TEST(ScaleSearchOfAWeight, FullStatisticsAreTheErrors) {
  auto rng = test_rng();
  Matrix m = gauss(50, 401, rng);
  const std::vector<float> weight = random_weights(m.cols(), rng);
  const float scale = absmax_scales(m, DType::f32, {50, 401})[0];
  const auto sums = sum_rows(stats(m, scale, weight.data(), ScaleSearch::full, 50), kScaleStats);
  double least = 1e300;
  for (int j = 0; j < kScaleFactors; ++j) {
    const double expected = error_of(m, DType::f32, scale * kScaleFactor[j], weight.data());
    EXPECT_NEAR(sums[j] * scale * scale, expected, expected * 5e-4) << kScaleFactor[j];
    least = std::min(least, expected);
  }
  EXPECT_NEAR(sums[kScaleFactors], 50 * std::accumulate(weight.begin(), weight.end(), 0.0), 0.1);
  const float best = best_scale_factor(sums.data(), ScaleSearch::full);
  EXPECT_LE(error_of(m, DType::f32, scale * best, weight.data()), least * 1.0005);
}

TEST(ScaleSearchOfAWeight, FastFindsMostOfTheGain) {
  auto rng = test_rng();
  Matrix m = gauss(1024, 1024, rng);
  const float scale = absmax_scales(m, DType::f32, {1024, 1024})[0];
  const auto error = [&](ScaleSearch search) {
    const auto sums = sum_rows(stats(m, scale, nullptr, search, 1024), kScaleStats);
    return error_of(m, DType::f32, scale * best_scale_factor(sums.data(), search), nullptr);
  };
  const double absmax = error_of(m, DType::f32, scale, nullptr);
  EXPECT_LT(error(ScaleSearch::full), 0.8 * absmax);
  EXPECT_LE(error(ScaleSearch::fast), 1.01 * error(ScaleSearch::full));
}

// A part of what is rounded and all of what is clipped: the moments are nearly those of all elements.
TEST(ScaleSearchOfAWeight, FastMomentsAreNearlyTheMoments) {
  auto rng = test_rng();
  Matrix m = gauss(1024, 1024, rng);
  for (int64_t r = 0; r < 1024; r += 100) m.set<float>(r, 1000 - r / 2, 0.3f);
  const float absmax = absmax_scales(m, DType::f32, {1024, 1024})[0];
  for (const float factor : {1.0f, 0.4f, 0.27f}) {
    const auto full = sum_rows(row_moments(m, absmax * factor, nullptr, ScaleSearch::full, 1024), kScaleMoments);
    const auto fast = sum_rows(row_moments(m, absmax * factor, nullptr, ScaleSearch::fast, 1024), kScaleMoments);
    EXPECT_NE(fast, full);
    EXPECT_NEAR(fast[0], full[0], full[0] * 0.02);
    EXPECT_NEAR(least_squares_factor(fast.data()), least_squares_factor(full.data()), 1e-3);
  }
}

TEST(ScaleSearchOfAWeight, LeastSquaresNeverHurts) {
  auto rng = test_rng();
  size_t changed = 0;
  for (int i = 0; i < 20; ++i) {
    Matrix m = gauss(3, 200, rng);
    const float scale = absmax_scales(m, DType::f32, {3, 200})[0] * (i % 2 == 0 ? 0.7f : 5.0f);
    const auto moments = sum_rows(row_moments(m, scale, nullptr, ScaleSearch::full, 3), kScaleMoments);
    const double before = error_of(m, DType::f32, scale, nullptr);
    EXPECT_NEAR(moments[0] * scale * scale, before, before * 5e-4);
    const float better = scale * least_squares_factor(moments.data());
    EXPECT_LE(error_of(m, DType::f32, better, nullptr), before * 1.0001);
    changed += better != scale;
  }
  EXPECT_GT(changed, 10u);
  const double nothing[kScaleMoments] = {1, 0, 0};
  EXPECT_EQ(least_squares_factor(nothing), 1.0f);
}

}  // namespace
}  // namespace mezzotint::kernel::test
