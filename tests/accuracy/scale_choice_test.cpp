#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <string>

#include "mezzotint/formats/driver.h"
#include "support/torch_random.h"

// How close each format comes to normally distributed weights at each effort: |Q - W| / |W|, on the weights of the
// study that set the targets (0.02 * torch.randn(1024, 1024), seed 1000).
namespace mezzotint::formats {
namespace {

constexpr int64_t kSize = 1024;

const std::vector<float>& weights() {
  static const std::vector<float> w = [] {
    std::vector<float> x = test::TorchGenerator(1000).randn(kSize * kSize);
    for (float& value : x) value *= 0.02f;
    return x;
  }();
  return w;
}

double relative_error(const std::vector<float>& decoded, double factor = 1) {
  const std::vector<float>& w = weights();
  double error = 0, total = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const auto x = static_cast<double>(w[i]);
    const double e = static_cast<double>(decoded[i]) * factor - x;
    error += e * e;
    total += x * x;
  }
  return std::sqrt(error / total);
}

std::vector<float> round_trip(const std::string& format, int effort) {
  const Selection selection = select_format(format);
  const auto description = selection.format->describe({{kSize, kSize}, LayerKind::linear}, selection.options);
  const Tile whole{weights().data(), DType::f32, 0, kSize, 0, kSize, kSize};
  const Quantized result = quantize(description.layout.value(), whole, {.effort = effort}, {}, 1);
  return dequantize(result.layout, result.parameters, 1);
}

struct Target {
  const char* format;
  int effort;
  double most;
};

void PrintTo(const Target& target, std::ostream* out) {
  *out << target.format << " at effort " << target.effort << " within " << target.most;
}

class ScaleChoice : public testing::TestWithParam<Target> {};

TEST_P(ScaleChoice, MeetsItsTarget) {
  const auto& [format, effort, most] = GetParam();
  const std::vector<float> decoded = round_trip(format, effort);
  const double error = relative_error(decoded);
  RecordProperty("error", std::to_string(error));
  EXPECT_LE(error, most);
  EXPECT_GE(error, 0.8 * most) << "far better than this format can be: is the weight the one meant?";
  EXPECT_GT(relative_error(decoded, 1.1), most) << "control MISSED: scales that are off by 10 percent";
}

// The study gives mxfp8 as 2.65 percent, in three digits.
INSTANTIATE_TEST_SUITE_P(
    Formats, ScaleChoice,
    testing::Values(Target{"float8_e4m3fn", 0, .0265}, Target{"float8_e4m3fn", 1, .0265},
                    Target{"float8_e4m3fn_rowwise", 0, .0265}, Target{"float8_e4m3fn_blockwise", 0, .0265},
                    Target{"mxfp8", 0, .02655}, Target{"mxfp8", 1, .02655}, Target{"int8_row", 0, .0079},
                    Target{"int8_row", 1, .0079}, Target{"int8_row", 2, .0079}, Target{"int8_tensor", 1, .0095},
                    Target{"int8_tensor", 2, .0095}, Target{"int8_blockwise", 1, .0091},
                    Target{"int8_blockwise", 2, .0091}, Target{"nvfp4", 1, .0870}, Target{"nvfp4", 2, .0815}),
    [](const auto& row) { return std::string(row.param.format) + "_effort" + std::to_string(row.param.effort); });

// Where a search is worth its time, plain absmax misses the target: the test above cannot pass by chance.
TEST(ScaleChoiceControl, AbsmaxMissesTheTargetsOfSearches) {
  EXPECT_GT(relative_error(round_trip("int8_tensor", 0)), .0095);
  EXPECT_GT(relative_error(round_trip("int8_blockwise", 0)), .0091);
  EXPECT_GT(relative_error(round_trip("nvfp4", 0)), .0870);
  EXPECT_GT(relative_error(round_trip("nvfp4", 1)), .0815);
}

// Rounding to nearest as the study measured it.
TEST(ScaleChoiceControl, AbsmaxIsWhatTheStudyMeasured) {
  EXPECT_NEAR(relative_error(round_trip("int8_tensor", 0)), .0112, .0001);
  EXPECT_NEAR(relative_error(round_trip("int8_blockwise", 0)), .0093, .0001);
  EXPECT_NEAR(relative_error(round_trip("int8_row", 0)), .0079, .0001);
  EXPECT_NEAR(relative_error(round_trip("float8_e4m3fn", 0)), .0264, .0001);
  EXPECT_NEAR(relative_error(round_trip("nvfp4", 0)), .0951, .0005);
}

}  // namespace
}  // namespace mezzotint::formats
