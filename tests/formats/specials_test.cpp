#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "mezzotint/formats/driver.h"
#include "support/seed.h"

// What each format promises beyond the reference: weights that are zero, next to nothing, or not finite.
namespace mezzotint::formats {
namespace {

struct Result {
  std::vector<float> scales;
  std::vector<uint8_t> codes;
  std::vector<float> values;
};

Result run(std::string_view text, const std::vector<float>& w, int64_t rows = 1) {
  const Selection selection = select_format(text);
  const int64_t cols = static_cast<int64_t>(w.size()) / rows;
  const Layout layout = selection.format->describe({{rows, cols}, LayerKind::linear}, selection.options).layout.value();
  const Quantized q = quantize(layout, {w.data(), DType::f32, 0, rows, 0, cols, cols}, {}, {}, 1);
  Result result;
  result.values = dequantize(layout, q.parameters, 1);
  result.codes.resize(q.parameters.tensors[0].size());
  std::memcpy(result.codes.data(), q.parameters.tensors[0].data(), result.codes.size());
  if (q.parameters.tensors.size() > 1) {
    result.scales.resize(q.parameters.tensors[1].size() / 4);
    std::memcpy(result.scales.data(), q.parameters.tensors[1].data(), q.parameters.tensors[1].size());
  }
  return result;
}

using Codes = std::vector<uint8_t>;

TEST(Specials, ZerosKeepTheirSignInFp8) {
  for (const char* format : {"float8_e4m3fn", "float8_e5m2"}) {
    const Result result = run(format, {0.0f, -0.0f, 0.0f});
    EXPECT_EQ(result.codes, (Codes{0x00, 0x80, 0x00})) << format;
    EXPECT_EQ(result.scales, std::vector{1.0f}) << format;
  }
  EXPECT_EQ(run("int8_tensorwise", {0.0f, -0.0f}).scales, std::vector{1e-30f});
  EXPECT_EQ(run("int8_row", {0.0f, -0.0f, 127.0f, 0.0f}, 2).scales, (std::vector{1e-30f, 1.0f}));
}

TEST(Specials, Fp8ScalesWhoseReciprocalOverflows) {
  auto rng = test::test_rng();
  for (const char* format : {"float8_e4m3fn", "float8_e5m2"})
    for (int exponent = -149; exponent <= -100; ++exponent) {
      std::vector<float> w(64);
      for (float& x : w) x = std::ldexp(std::uniform_real_distribution<float>(-1, 1)(rng), exponent);
      w[3] = 0.0f;
      w[4] = -0.0f;
      const Result result = run(format, w);
      SCOPED_TRACE(std::string(format) + " 2^" + std::to_string(exponent));
      const float s = result.scales[0];
      ASSERT_TRUE(std::isfinite(s) && s > 0);
      for (size_t i = 0; i < w.size(); ++i) {
        ASSERT_EQ(std::signbit(w[i]), (result.codes[i] & 0x80) != 0);
        ASSERT_LE(std::abs(static_cast<double>(result.values[i]) - w[i]), 0.25 * std::abs(w[i]) + s);
        if (w[i] == 0) {
          ASSERT_EQ(result.codes[i] & 0x7F, 0);
        }
      }
    }
}

TEST(Specials, InfSaturatesAndNanIsKeptOrZero) {
  const std::vector<float> w = {1.0f, INFINITY, -INFINITY, NAN, -1.0f};
  const Result e4m3 = run("float8_e4m3fn", w);
  EXPECT_EQ(e4m3.scales, std::vector{1.0f / 448.0f});
  EXPECT_EQ(e4m3.codes, (Codes{0x7E, 0x7E, 0xFE, 0x7F, 0xFE}));
  const Result e5m2 = run("float8_e5m2", w);
  EXPECT_EQ(e5m2.scales, std::vector{1.0f / 57344.0f});
  EXPECT_EQ(e5m2.codes, (Codes{0x7B, 0x7B, 0xFB, 0x7F, 0xFB}));
  const Result int8 = run("int8_tensorwise", w);
  EXPECT_EQ(int8.scales, std::vector{1.0f / 127.0f});
  EXPECT_EQ(int8.codes, (Codes{127, 127, 0x80, 0, 0x81}));
  const Result block = run("int8_blockwise:block_size=1,geometry=row_group", {2.0f, INFINITY, -INFINITY, NAN});
  EXPECT_EQ(block.codes, (Codes{127, 127, 0x81, 0}));
  EXPECT_EQ(block.scales[1], 1e-12f);
}

TEST(Specials, PlainDtypesConvertLikeIeee) {
  const Result half = run("fp16", {65504.0f, 65519.0f, 1e6f, -INFINITY, -0.0f});
  EXPECT_EQ(half.values[0], 65504.0f);
  EXPECT_EQ(half.values[1], 65504.0f);
  EXPECT_EQ(half.values[2], INFINITY);
  EXPECT_EQ(half.values[3], -INFINITY);
  EXPECT_TRUE(std::signbit(half.values[4]));
}

TEST(Specials, ExpertsHaveScalesOfTheirOwn) {
  for (const char* text : {"float8_e4m3fn", "int8_tensorwise"}) {
    const Selection selection = select_format(text);
    const Layout layout =
        selection.format->describe({{3, 2, 4}, LayerKind::expert_bank}, selection.options).layout.value();
    EXPECT_EQ(layout.tensors[1].shape, Shape{3});
    std::vector<float> w(24);
    for (size_t i = 0; i < w.size(); ++i) w[i] = std::ldexp(1.0f + static_cast<float>(i % 8), static_cast<int>(i / 8));
    const Quantized q = quantize(layout, {w.data(), DType::f32, 0, 6, 0, 4, 4}, {}, {}, 1);
    float scales[3];
    std::memcpy(scales, q.parameters.tensors[1].data(), sizeof(scales));
    EXPECT_EQ(scales[1], 2 * scales[0]) << text;
    EXPECT_EQ(scales[2], 4 * scales[0]) << text;
    for (size_t i = 0; i < 8; ++i) EXPECT_EQ(q.parameters.tensors[0][i], q.parameters.tensors[0][i + 16]) << text;
  }
}

TEST(Specials, EmbeddingsAreStoredWhereComfyUiLooksThemUp) {
  for (const Format* format : all_formats()) {
    const bool stores =
        format->describe({{512, 128}, LayerKind::embedding}, complete_options(*format, {})).layout.has_value();
    if (stores) {
      EXPECT_TRUE(format->support.comfyui) << format->name;
    }
  }
  EXPECT_TRUE(select_format("fp8").format->describe({{5, 3}, LayerKind::embedding}, {}).layout.has_value());
}

}  // namespace
}  // namespace mezzotint::formats
