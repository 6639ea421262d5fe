#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "formats/claims.h"
#include "mezzotint/formats/driver.h"
#include "support/seed.h"

// convrot_w4a4 and asym_w4a8_int8: bytes where the rotation is exact, what files of other writers look like, and what
// the search for scales gains.
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

Layout layout_of(std::string_view text, const Shape& shape) {
  const Selection selection = select_format(text);
  return selection.format->describe({shape, LayerKind::linear}, selection.options).layout.value();
}
Quantized run(const Layout& layout, const std::vector<float>& w, const ChooseOptions& choose = {}) {
  return quantize(layout, {w.data(), DType::f32, 0, layout.rows, 0, layout.cols, layout.cols}, choose, {}, 1);
}
std::vector<float> normals(int64_t rows, int64_t cols, std::mt19937_64& rng) {
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> w(static_cast<size_t>(rows * cols));
  for (float& x : w) x = normal(rng);
  return w;
}
double relative_error(const Layout& layout, const std::vector<float>& w, const ChooseOptions& choose = {}) {
  const std::vector<float> got = dequantize(layout, run(layout, w, choose).parameters, 1);
  double error = 0, norm = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - w[i], 2);
    norm += std::pow(static_cast<double>(w[i]), 2);
  }
  return std::sqrt(error / norm);
}

const TensorFacts kCodes{"weight", DType::i8, {64, 256}};
TensorFacts tensor(std::string suffix, DType dtype, Shape shape) {
  return {std::move(suffix), dtype, std::move(shape)};
}

// Low nibble = even column, two's complement, one scale [N]; a group of 4 with one weight becomes +-1/2 of it.
TEST(ConvrotW4a4, BytesOfOneRotatedGroup) {
  const Layout layout = layout_of("convrot_w4a4:convrot_groupsize=4", {1, 64});
  std::vector<float> w(64, 0.0f);
  w[0] = 14.0f;  // rotated: 7 7 7 -7
  const Quantized q = run(layout, w);
  float scale = 0;
  std::memcpy(&scale, q.parameters.tensors[1].data(), 4);
  EXPECT_EQ(scale, 1.0f);
  EXPECT_EQ(q.parameters.tensors[0][0], std::byte{0x77});
  EXPECT_EQ(q.parameters.tensors[0][1], std::byte{0x97});  // column 3 in the high nibble: -7
  EXPECT_EQ(dequantize(layout, q.parameters, 1), w);
}

TEST(ConvrotW4a4, ReadsTheMarkerAndMendsScales) {
  const std::string marker = R"({"format": "convrot_w4a4", "convrot_groupsize": 64, "linear_dtype": "int8"})";
  const auto good = claim(marker, {kCodes, tensor("weight_scale", DType::f32, {64})});
  EXPECT_EQ(good.label, "convrot_w4a4:convrot_groupsize=64,linear_dtype=int8");
  EXPECT_EQ(good.fit, Fit::labelled);
  EXPECT_EQ(problems(good), "");
  EXPECT_EQ(good.recognition.layout.shape, (Shape{64, 512}));

  const auto column = claim(marker, {kCodes, tensor("weight_scale", DType::f32, {64, 1})});
  EXPECT_EQ(column.fit, Fit::labelled);
  EXPECT_THAT(problems(column), HasSubstr("take only [64]"));
  EXPECT_EQ(column.recognition.layout.tensors[1].shape, Shape{64});

  const auto bytes = claim(marker, {tensor("weight", DType::u8, {64, 256}), tensor("weight_scale", DType::f32, {64})});
  EXPECT_EQ(bytes.fit, Fit::labelled);
  EXPECT_THAT(problems(bytes), HasSubstr("belong in I8"));

  const auto bank = claim(R"({"format": "convrot_w4a4"})",
                          {tensor("weight", DType::i8, {3, 64, 256}), tensor("weight_scale", DType::f32, {3, 64})});
  EXPECT_EQ(bank.label, "convrot_w4a4");
  EXPECT_EQ(bank.recognition.layout.shape, (Shape{3, 64, 512}));
}

TEST(ConvrotW4a4, RefusesWhatComfyUiCannotRun) {
  for (const char* marker : {R"({"format": "convrot_w4a4", "convrot_groupsize": 512})",
                             R"({"format": "convrot_w4a4", "convrot_groupsize": 1024})",
                             R"({"format": "convrot_w4a4", "linear_dtype": "fp8"})"})
    EXPECT_EQ(claim(marker, {kCodes, tensor("weight_scale", DType::f32, {64})}).fit, Fit::broken) << marker;
  EXPECT_EQ(claim(R"({"format": "convrot_w4a4"})", {kCodes, tensor("weight_scale", DType::f32, {})}).fit, Fit::broken);
  const Format& format = *select_format("convrot_w4a4").format;
  const auto refusal = [&](const Shape& shape, LayerKind kind, const char* options) {
    return format.describe({shape, kind}, select_format(std::string("convrot_w4a4") + options).options).refusal;
  };
  EXPECT_THAT(refusal({64, 384}, LayerKind::linear, ""), HasSubstr("K = 384 is not a multiple of convrot_groupsize"));
  EXPECT_EQ(refusal({64, 384}, LayerKind::linear, ":convrot_groupsize=64"), "");
  EXPECT_THAT(refusal({64, 48}, LayerKind::linear, ":convrot_groupsize=16"), HasSubstr("multiple of 64"));
  EXPECT_THAT(refusal({64, 512}, LayerKind::embedding, ""), HasSubstr("embedding"));
  EXPECT_THROW(select_format("convrot_w4a4:convrot_groupsize=512"), std::exception);
}

TEST(ConvrotW4a4, SearchedScalesAreBetterAndFollowTheWeightsOfColumns) {
  auto rng = test::test_rng();
  const Layout layout = layout_of("convrot_w4a4", {32, 2048});
  const std::vector<float> w = normals(32, 2048, rng);
  const double absmax = relative_error(layout, w);
  const double fast = relative_error(layout, w, {.column_weight = {}, .effort = 1});
  const double full = relative_error(layout, w, {.column_weight = {}, .effort = 2});
  EXPECT_LT(fast, 0.90 * absmax);
  EXPECT_LT(full, 0.90 * absmax);
  // A first half of large weights that do not count: scales then fit the other half.
  std::vector<float> uneven = w;
  for (size_t i = 0; i < uneven.size(); ++i)
    if (i % 2048 < 1024) uneven[i] *= 1.6f;
  std::vector<float> importance(2048, 1.0f);
  std::fill_n(importance.begin(), 1024, 1e-3f);
  const auto error_of_half = [&](const ChooseOptions& choose) {
    const std::vector<float> got = dequantize(layout, run(layout, uneven, choose).parameters, 1);
    double error = 0;
    for (size_t i = 0; i < got.size(); ++i)
      if (i % 2048 >= 1024) error += std::pow(static_cast<double>(got[i]) - uneven[i], 2);
    return error;
  };
  EXPECT_LT(error_of_half({importance, 2}), 0.95 * error_of_half({{}, 2}));
}

TEST(AsymW4a8, ReadsEveryForm) {
  const std::string marker = R"({"format": "asym_w4a8_int8", "group_size": 16, "convrot_groupsize": 64})";
  const TensorFacts relative = tensor("weight_s_rel", DType::f8_e4m3, {64, 32});
  const TensorFacts channel = tensor("weight_s_channel", DType::f32, {64});
  const TensorFacts table = tensor("weight_codebook", DType::f32, {16});
  const TensorFacts shift = tensor("weight_correction", DType::f32, {32, 64});
  EXPECT_EQ(claim(marker, {kCodes, relative, channel, table}).label, "asym_w4a8_int8:convrot_groupsize=64");
  EXPECT_EQ(claim(marker, {kCodes, relative, channel}).label, "asym_w4a8_int8:codes=uniform,convrot_groupsize=64");
  const auto shifted = claim(marker, {kCodes, relative, channel, shift});
  EXPECT_EQ(shifted.label, "asym_w4a8_int8:codes=asymmetric,convrot_groupsize=64");
  EXPECT_THAT(shifted.recognition.layout.flaw, HasSubstr("does not read weight_correction"));
  const TensorFacts six = tensor("weight", DType::i8, {64, 384});
  const auto wide = claim(marker, {six, relative, channel});
  EXPECT_EQ(wide.label, "asym_w4a8_int8:codes=six_bit,convrot_groupsize=64");
  EXPECT_EQ(wide.recognition.layout.shape, (Shape{64, 512}));
  EXPECT_EQ(claim(marker, {six, relative, channel, table}).fit, Fit::broken);
  const auto plain = claim(marker, {kCodes, tensor("weight_s_rel", DType::f32, {64, 32}), channel, table});
  EXPECT_EQ(plain.label, "asym_w4a8_int8:convrot_groupsize=64");
  EXPECT_EQ(plain.recognition.layout.tensors[1].dtype, DType::f32);
  // ComfyUI views U8 scales as e4m3.
  const auto bytes = claim(marker, {kCodes, tensor("weight_s_rel", DType::u8, {64, 32}), channel, table});
  EXPECT_EQ(bytes.fit, Fit::labelled);
  EXPECT_EQ(problems(bytes), "");
  const auto column = claim(marker, {kCodes, relative, tensor("weight_s_channel", DType::f32, {64, 1}), table});
  EXPECT_EQ(column.fit, Fit::labelled);
  EXPECT_THAT(problems(column), HasSubstr("takes only F32 [64]"));
}

TEST(AsymW4a8, ReportsWhatDoesNotFit) {
  const std::string marker = R"({"format": "asym_w4a8_int8", "group_size": 16})";
  const TensorFacts relative = tensor("weight_s_rel", DType::f8_e4m3, {64, 32});
  const TensorFacts channel = tensor("weight_s_channel", DType::f32, {64});
  EXPECT_EQ(claim(marker, {kCodes, relative}).fit, Fit::broken);
  EXPECT_EQ(claim(marker, {kCodes, tensor("weight_s_rel", DType::f8_e4m3, {64, 31}), channel}).fit, Fit::broken);
  EXPECT_EQ(claim(marker, {tensor("weight", DType::i8, {3, 64, 256}), relative, channel}).fit, Fit::broken);
  for (const LayerKind kind : {LayerKind::embedding, LayerKind::expert_bank}) {
    const Shape shape = kind == LayerKind::embedding ? Shape{64, 512} : Shape{3, 64, 512};
    EXPECT_NE(select_format("w4a8").format->describe({shape, kind}, select_format("w4a8").options).refusal, "");
  }
  const auto lost =
      claim(R"({"format": "asym_w4a8_int8", "group_size": 16, "codes": "codebook"})", {kCodes, relative, channel});
  EXPECT_EQ(lost.fit, Fit::broken);
  EXPECT_THAT(problems(lost), HasSubstr("weight_codebook"));
  Layout layout = layout_of("w4a8", {2, 256});
  Quantized q = run(layout, std::vector<float>(512, 0.5f));
  std::vector<std::string> found;
  check_parameters(layout, q.parameters, found);
  EXPECT_TRUE(found.empty());
  reinterpret_cast<float*>(q.parameters.tensors[3].data())[3] = 5.0f;
  check_parameters(layout, q.parameters, found);
  EXPECT_THAT(found, testing::ElementsAre(HasSubstr("ascending")));
}

TEST(AsymW4a8, ErrorsAreThoseOfTheFormat) {
  auto rng = test::test_rng();
  const std::vector<float> w = normals(64, 1024, rng);
  const auto error = [&](const char* text, int effort) {
    return relative_error(layout_of(text, {64, 1024}), w, {.column_weight = {}, .effort = effort});
  };
  const double table = error("w4a8", 0), searched = error("w4a8", 2), six = error("w6a8", 0);
  EXPECT_NEAR(table, 0.073, 0.002);
  EXPECT_LT(searched, 0.99 * table);
  EXPECT_LT(six, 0.025);
  EXPECT_LT(error("w4a8:codes=uniform", 2), error("w4a8:codes=uniform", 0));
  EXPECT_LT(error("w4a8:codes=asymmetric", 2), error("w4a8:codes=asymmetric", 0));
}

}  // namespace
}  // namespace mezzotint::formats
