#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "formats/claims.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/formats/driver.h"
#include "support/awkward.h"
#include "support/seed.h"

// The formats with E4M3 codes and scales per row or block: their formula element by element, and which of them a layer
// is (the spec's section 5.3, and the traps about scale shapes and `_blockwise` labels).
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

struct Expected {
  std::vector<float> scales;
  std::vector<uint8_t> codes;
};

Expected by_formula(const std::vector<float>& w, const Layout& layout) {
  const int64_t down = layout.block_rows, right = layout.block_cols != 0 ? layout.block_cols : layout.cols;
  const int64_t across = layout.cols / right;
  Expected expected;
  expected.scales.resize(static_cast<size_t>(layout.rows / down * across));
  expected.codes.resize(w.size());
  std::vector<float> amax(expected.scales.size(), 1e-12f);
  const auto block = [&](size_t i) {
    const int64_t r = static_cast<int64_t>(i) / layout.cols, c = static_cast<int64_t>(i) % layout.cols;
    return static_cast<size_t>(r / down * across + c / right);
  };
  for (size_t i = 0; i < w.size(); ++i)
    if (std::isfinite(w[i])) amax[block(i)] = std::fmax(amax[block(i)], std::fabs(w[i]));
  for (size_t b = 0; b < amax.size(); ++b) {
    const float reciprocal = 1.0f / amax[b];
    const float qs = 448.0f * reciprocal;
    expected.scales[b] = 1.0f / qs;
  }
  for (size_t i = 0; i < w.size(); ++i) {
    const float multiplier = 1.0f / expected.scales[block(i)];
    expected.codes[i] = static_cast<uint8_t>(E4m3::encode_saturating(w[i] * multiplier));
  }
  return expected;
}

TEST(Fp8Blocks, BytesFollowTheFormula) {
  auto rng = test::test_rng();
  size_t cases = 0;
  for (const char* text :
       {"float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise:block_size=7", "float8_e4m3fn_blockwise:block_size=64",
        "float8_e4m3fn_block3d:block_size=3", "float8_e4m3fn_block3d:block_size=64"})
    for (const Shape& shape : test::awkward_shapes()) {
      const Selection selection = select_format(text);
      const auto description = selection.format->describe({shape, LayerKind::linear}, selection.options);
      if (!description.layout) continue;
      const Layout& layout = *description.layout;
      for (const auto& input : test::awkward_inputs()) {
        SCOPED_TRACE(std::string(text) + " " + to_string(shape) + " " + input.name);
        const std::vector<float> w = test::make_values(input, rng, layout.rows, layout.cols);
        const Quantized result =
            quantize(layout, {w.data(), DType::f32, 0, layout.rows, 0, layout.cols, layout.cols}, {}, {}, 1);
        const Expected expected = by_formula(w, layout);
        ASSERT_EQ(result.parameters.tensors[1].size(), expected.scales.size() * 4);
        EXPECT_EQ(std::memcmp(result.parameters.tensors[1].data(), expected.scales.data(), expected.scales.size() * 4),
                  0);
        ASSERT_EQ(result.parameters.tensors[0].size(), expected.codes.size());
        EXPECT_EQ(std::memcmp(result.parameters.tensors[0].data(), expected.codes.data(), expected.codes.size()), 0);
        ++cases;
      }
    }
  EXPECT_GT(cases, 250u);
}

TEST(Fp8Blocks, ScaleShapes) {
  const auto shape = [](std::string_view text, Shape weight, LayerKind kind = LayerKind::linear) {
    const Selection selection = select_format(text);
    const auto description = selection.format->describe({std::move(weight), kind}, selection.options);
    return description.layout ? to_string(description.layout->tensors[1].shape) : description.refusal;
  };
  EXPECT_EQ(shape("float8_e4m3fn_rowwise", {256, 512}), "[256]");
  EXPECT_EQ(shape("float8_e4m3fn_rowwise", {1, 512}), "[]");
  EXPECT_EQ(shape("float8_e4m3fn_rowwise", {3, 256, 512}, LayerKind::expert_bank), "[3, 256]");
  EXPECT_EQ(shape("float8_e4m3fn_blockwise", {256, 512}), "[2, 4]");
  EXPECT_EQ(shape("float8_e4m3fn_blockwise:block_size=64", {256, 512}), "[4, 8]");
  EXPECT_EQ(shape("float8_e4m3fn_blockwise", {3, 256, 512}, LayerKind::expert_bank), "[3, 2, 4]");
  EXPECT_EQ(shape("float8_e4m3fn_block3d", {200, 512}), "[200, 4, 1]");
  EXPECT_EQ(shape("float8_e4m3fn_blockwise", {200, 512}), "N = 200 is not a multiple of 128");
  EXPECT_EQ(shape("float8_e4m3fn_block3d", {200, 500}), "K = 500 is not a multiple of 128");
}

const TensorFacts kWeight{"weight", DType::f8_e4m3, {256, 512}};
TensorFacts scale(Shape shape, DType dtype = DType::f32) {
  return {"weight_scale", dtype, std::move(shape)};
}

struct Case {
  std::string marker;
  Shape scale;
  std::string expected;
  Fit fit;
};

TEST(Fp8Blocks, TheScaleSaysWhatALayerIs) {
  const std::string tensor = R"({"format": "float8_e4m3fn"})", row = R"({"format": "float8_e4m3fn_rowwise"})",
                    block = R"({"format": "float8_e4m3fn_blockwise", "group_size": 64})",
                    block3d = R"({"format": "float8_e4m3fn_block3d"})";
  const std::string by_row = "float8_e4m3fn_rowwise", tiles = "float8_e4m3fn_blockwise:block_size=64",
                    groups = "float8_e4m3fn_block3d:block_size=64";
  for (const Case& c : std::vector<Case>{
           {row, {256}, by_row, Fit::labelled},
           {block, {4, 8}, tiles, Fit::labelled},
           {block3d, {256, 8, 1}, groups, Fit::labelled},
           // Rows under the label of blocks: what convert_to_quant writes where N or K is no multiple.
           {block, {256}, by_row, Fit::mislabelled},
           {block, {256, 8, 1}, groups, Fit::mislabelled},
           {row, {4, 8}, tiles, Fit::mislabelled},
           {block3d, {4, 8}, tiles, Fit::mislabelled},
           // ComfyUI loads these and fails at the first forward.
           {tensor, {256}, by_row, Fit::mislabelled},
           {tensor, {4, 8}, tiles, Fit::mislabelled},
           {tensor, {256, 8, 1}, groups, Fit::mislabelled},
           {row, {}, "float8_e4m3fn", Fit::mislabelled},
           {block, {1}, "float8_e4m3fn", Fit::mislabelled},
           // No marker, as in legacy files: rows and groups of musubi-tuner.
           {"", {256}, by_row, Fit::unlabelled},
           {"", {256, 1}, by_row, Fit::unlabelled},
           {"", {256, 8, 1}, groups, Fit::unlabelled},
           {"", {4, 8}, tiles, Fit::unlabelled},
           {"", {1}, "float8_e4m3fn", Fit::unlabelled},
           // What fits nothing.
           {row, {512}, "float8_e4m3fn_rowwise", Fit::broken},
           {block, {4, 4}, "float8_e4m3fn_blockwise", Fit::broken},
           {block3d, {256, 8}, "float8_e4m3fn_block3d", Fit::broken},
           {"", {4, 4}, "", Fit::none},
       }) {
    SCOPED_TRACE(c.marker + " " + to_string(c.scale));
    const auto found = claim(c.marker, {kWeight, scale(c.scale)});
    EXPECT_EQ(found.label, c.expected);
    EXPECT_EQ(static_cast<int>(found.fit), static_cast<int>(c.fit)) << problems(found);
  }
}

TEST(Fp8Blocks, SaysWhatToMend) {
  EXPECT_THAT(problems(claim(R"({"format": "float8_e4m3fn_rowwise"})", {kWeight, scale({256, 1})})),
              HasSubstr("expect [256]"));
  EXPECT_EQ(problems(claim("", {kWeight, scale({256, 1}, DType::bf16)})), "");
  EXPECT_THAT(problems(claim(R"({"format": "float8_e4m3fn_blockwise", "group_size": 128})", {kWeight, scale({4, 8})})),
              HasSubstr("means blocks of 64"));
  EXPECT_THAT(
      problems(claim(R"({"format": "float8_e4m3fn_rowwise"})", {{"weight", DType::u8, {256, 512}}, scale({256})})),
      HasSubstr("stores F8_E4M3"));
}

}  // namespace
}  // namespace mezzotint::formats
