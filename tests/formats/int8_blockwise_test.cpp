#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "mezzotint/formats/driver.h"
#include "support/awkward.h"
#include "support/seed.h"

// No reference program writes int8_blockwise with rint on every path, so its bytes are checked against the formula of
// its README, one element at a time.
namespace mezzotint::formats {
namespace {

struct Expected {
  std::vector<float> scales;
  std::vector<int8_t> codes;
};

Expected by_formula(const std::vector<float>& w, int64_t rows, int64_t cols, int64_t block_rows, int64_t block_cols,
                    float floor) {
  Expected expected;
  for (int64_t r = 0; r < rows; r += block_rows)
    for (int64_t c = 0; c < cols; c += block_cols) {
      float amax = 0;
      for (int64_t i = r; i < r + block_rows; ++i)
        for (int64_t j = c; j < c + block_cols; ++j)
          if (std::isfinite(w[i * cols + j]) && std::fabs(w[i * cols + j]) > amax) amax = std::fabs(w[i * cols + j]);
      const float scale = amax / 127.0f;
      expected.scales.push_back(scale > floor ? scale : floor);
    }
  const int64_t across = cols / block_cols;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const float ratio = w[r * cols + c] / expected.scales[r / block_rows * across + c / block_cols];
      const float clamped = std::fmin(std::fmax(ratio, -127.0f), 127.0f);
      expected.codes.push_back(std::isnan(w[r * cols + c]) ? int8_t{0} : static_cast<int8_t>(std::nearbyint(clamped)));
    }
  return expected;
}

TEST(Int8Blockwise, BytesFollowTheFormula) {
  auto rng = test::test_rng();
  size_t cases = 0;
  for (const Shape& shape : test::awkward_shapes())
    for (const char* block : {"1", "3", "7", "64", "128"})
      for (const char* geometry : {"tile", "row_group"}) {
        const Selection selection =
            select_format("int8_blockwise:block_size=" + std::string(block) + ",geometry=" + geometry);
        const auto description = selection.format->describe({shape, LayerKind::linear}, selection.options);
        if (!description.layout) continue;
        const Layout& layout = *description.layout;
        for (const auto& input : test::awkward_inputs()) {
          SCOPED_TRACE(selection.label() + " " + to_string(shape) + " " + input.name);
          const std::vector<float> w = test::make_values(input, rng, layout.rows, layout.cols);
          const Quantized result =
              quantize(layout, {w.data(), DType::f32, 0, layout.rows, 0, layout.cols, layout.cols}, {}, {}, 1);
          const bool tile = std::string(geometry) == "tile";
          const Expected expected = by_formula(w, layout.rows, layout.cols, tile ? layout.block_cols : 1,
                                               layout.block_cols, tile ? 1e-8f : 1e-12f);
          ASSERT_EQ(result.parameters.tensors[1].size(), expected.scales.size() * 4);
          EXPECT_EQ(
              std::memcmp(result.parameters.tensors[1].data(), expected.scales.data(), expected.scales.size() * 4), 0);
          EXPECT_EQ(std::memcmp(result.parameters.tensors[0].data(), expected.codes.data(), expected.codes.size()), 0);
          ++cases;
        }
      }
  EXPECT_GT(cases, 200u);
}

double weighted_error(const std::vector<float>& w, const std::vector<float>& decoded,
                      const std::vector<float>& weight) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double e = static_cast<double>(w[i]) - static_cast<double>(decoded[i]);
    sum += e * e * static_cast<double>(weight[i % weight.size()]);
  }
  return sum;
}

TEST(Int8Blockwise, EffortLowersTheErrorThatCounts) {
  auto rng = test::test_rng();
  std::normal_distribution<float> normal(0, 0.02f);
  constexpr int64_t kRows = 256, kCols = 384;
  std::vector<float> w(kRows * kCols), even(kCols, 1.0f), uneven(kCols);
  for (float& x : w) x = normal(rng);
  for (float& h : uneven) h = rng() % 16 == 0 ? 100.0f : 0.01f;
  for (const char* geometry : {"tile", "row_group"}) {
    const bool tile = std::string(geometry) == "tile";
    const Selection selection = select_format(std::string("int8_blockwise:geometry=") + geometry);
    const Layout layout = *selection.format->describe({{kRows, kCols}, LayerKind::linear}, selection.options).layout;
    const auto error = [&](int effort, const std::vector<float>& given, const std::vector<float>& counted) {
      const ChooseOptions choose{.column_weight = given, .effort = effort};
      const Quantized result = quantize(layout, {w.data(), DType::f32, 0, kRows, 0, kCols, kCols}, choose, {}, 1);
      return weighted_error(w, dequantize(layout, result.parameters, 1), counted);
    };
    const double absmax = error(0, {}, even);
    EXPECT_EQ(error(0, uneven, even), absmax) << "absmax knows no weights";
    if (tile) {
      EXPECT_LT(error(1, {}, even), 0.98 * absmax);
      EXPECT_LT(error(1, uneven, uneven), 0.98 * error(1, {}, uneven));
    } else {
      EXPECT_EQ(error(1, {}, even), absmax) << "effort 1 leaves small blocks alone";
    }
    EXPECT_LT(error(2, {}, even), 0.99 * absmax);
    EXPECT_LE(error(2, {}, even), 1.0005 * error(1, {}, even));
    EXPECT_LT(error(2, uneven, uneven), 0.9 * error(2, {}, uneven));
  }
}

TEST(Int8Blockwise, RefusesWithTheDimension) {
  const Selection selection = select_format("int8_blockwise");
  EXPECT_EQ(selection.format->describe({{128, 100}, LayerKind::linear}, selection.options).refusal,
            "K = 100 is not a multiple of 128");
  EXPECT_EQ(selection.format->describe({{100, 128}, LayerKind::linear}, selection.options).refusal,
            "N = 100 is not a multiple of 128");
  EXPECT_NE(selection.format->describe({{128, 128}, LayerKind::embedding}, selection.options).refusal, "");
  EXPECT_EQ(selection.format
                ->describe({{100, 128}, LayerKind::linear}, select_format("int8_blockwise:geometry=row_group").options)
                .refusal,
            "");
}

}  // namespace
}  // namespace mezzotint::formats
