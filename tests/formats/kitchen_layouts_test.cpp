#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "formats/claims.h"
#include "mezzotint/formats/driver.h"
#include "support/seed.h"

// Layers of comfy-kitchen's layouts that have no name in ComfyUI, and so no marker: what they are is told by their
// tensors. Their values are tested on the reference bytes.
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

std::vector<TensorFacts> svdquant() {
  return {{"weight", DType::i8, {256, 96}},
          {"weight_scale", DType::bf16, {3, 256}},
          {"weight_proj_down", DType::bf16, {192, 32}},
          {"weight_proj_up", DType::bf16, {256, 32}},
          {"weight_smooth_factor", DType::bf16, {192}}};
}
std::vector<TensorFacts> awq() {
  return {
      {"weight", DType::i8, {256, 96}}, {"weight_scale", DType::f16, {3, 256}}, {"weight_zeros", DType::f16, {3, 256}}};
}
std::vector<TensorFacts> changed(std::vector<TensorFacts> tensors, std::string_view suffix, Shape shape) {
  for (TensorFacts& tensor : tensors)
    if (tensor.suffix == suffix) tensor.shape = shape;
  return tensors;
}

void expect_layer(const Claim& found, std::string_view name, const Shape& shape) {
  EXPECT_EQ(found.label, name);
  EXPECT_EQ(found.fit, Fit::labelled) << problems(found);
  EXPECT_EQ(found.recognition.layout.shape, shape);
  EXPECT_EQ(problems(found), "");
  EXPECT_EQ(codes_bytes(found.recognition.layout), tensor_bytes(found.recognition.layout.tensors[0]));
}

TEST(KitchenLayouts, AreToldByTheirTensors) {
  expect_layer(claim("", svdquant()), "svdquant_w4a4", {256, 192});
  expect_layer(claim(R"({"format": "svdquant_w4a4"})", svdquant()), "svdquant_w4a4", {256, 192});
  expect_layer(claim("", awq()), "awq_w4a16", {256, 192});
  expect_layer(claim(R"({"format": "awq_w4a16"})", awq()), "awq_w4a16", {256, 192});
  // Parameters stay in the type that the loader computes with.
  EXPECT_EQ(claim("", awq()).recognition.layout.tensors[2].dtype, DType::f16);
}

TEST(KitchenLayouts, TilesMayStandInForEachTensor) {
  auto tensors = changed(svdquant(), "weight", {2, 3, 32, 128});
  expect_layer(claim("", tensors), "svdquant_w4a4", {256, 192});
  EXPECT_EQ(claim("", tensors).recognition.layout.row_granule, 128);
  tensors = changed(changed(tensors, "weight_scale", {2, 3, 128}), "weight_proj_up", {2, 32, 128});
  expect_layer(claim("", tensors), "svdquant_w4a4", {256, 192});
  for (const Shape& shape : {Shape{2, 3, 128, 32}, Shape{3, 2, 32, 128}, Shape{2, 3, 4096}})
    EXPECT_EQ(claim("", changed(svdquant(), "weight", shape)).fit, Fit::broken) << to_string(shape);
}

TEST(KitchenLayouts, SayWhatIsWrong) {
  for (const auto& tensors : {svdquant(), awq()})
    for (size_t i = 1; i < tensors.size(); ++i) {
      auto without = tensors;
      without.erase(without.begin() + static_cast<int64_t>(i));
      const bool svd = tensors.size() == 5;
      const auto missing = claim(svd ? R"({"format": "svdquant_w4a4"})" : R"({"format": "awq_w4a16"})", without);
      EXPECT_EQ(missing.fit, Fit::broken);
      EXPECT_THAT(problems(missing), HasSubstr(tensors[i].suffix + " is missing"));
      const auto misshapen = claim("", changed(tensors, tensors[i].suffix, {7, 5}));
      EXPECT_EQ(misshapen.fit, Fit::broken) << tensors[i].suffix;
      EXPECT_THAT(problems(misshapen), HasSubstr(tensors[i].suffix));
      auto integers = tensors;
      integers[i].dtype = DType::i32;
      EXPECT_EQ(claim("", integers).fit, Fit::broken);
    }
  // Without what is theirs alone they are not theirs.
  EXPECT_NE(claim("", {svdquant()[0], svdquant()[1]}).label, "svdquant_w4a4");
  EXPECT_EQ(claim(R"({"format": "float8_e4m3fn"})", awq()).label, "float8_e4m3fn");
}

/// The layout with parameters of random bits that are finite floats.
Parameters random_parameters(const Layout& layout, std::mt19937_64& rng) {
  Parameters parameters;
  for (const StoredTensor& tensor : layout.tensors) {
    auto& bytes = parameters.tensors.emplace_back(tensor_bytes(tensor));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng());
    if (&tensor == &layout.tensors[0]) continue;
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
      const auto value = static_cast<uint16_t>(0x3C00 + rng() % 0x200);
      std::memcpy(&bytes[i], &value, 2);
    }
  }
  return parameters;
}

TEST(KitchenLayouts, AnyPartDecodesToTheSameValues) {
  auto rng = test::test_rng();
  for (const auto& tensors : {svdquant(), awq(), changed(svdquant(), "weight", {2, 3, 32, 128}),
                              changed(svdquant(), "weight_proj_up", {2, 32, 128})}) {
    const Layout layout = claim("", tensors).recognition.layout;
    const Parameters parameters = random_parameters(layout, rng);
    const std::vector<float> whole = dequantize(layout, parameters, 1);
    EXPECT_EQ(dequantize(layout, parameters, 3), whole);
    for (const RowRange& range : row_tiles(layout, 5))
      for (const auto& [col0, cols] : {std::pair<int64_t, int64_t>{0, 192}, {1, 1}, {63, 2}, {64, 128}, {191, 1}}) {
        std::vector<float> part(static_cast<size_t>(range.rows * cols));
        layout.format->decode(layout, parameters, range.row0, range.rows, col0, cols,
                              parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes,
                              part.data(), cols);
        for (int64_t r = 0; r < range.rows; ++r)
          for (int64_t c = 0; c < cols; ++c)
            ASSERT_EQ(part[static_cast<size_t>(r * cols + c)],
                      whole[static_cast<size_t>((range.row0 + r) * 192 + col0 + c)])
                << range.row0 + r << ", " << col0 + c;
      }
  }
}

TEST(KitchenLayouts, SmoothFactorsMustNotBeZero) {
  auto rng = test::test_rng();
  const Layout layout = claim("", svdquant()).recognition.layout;
  Parameters parameters = random_parameters(layout, rng);
  std::vector<std::string> problems;
  check_parameters(layout, parameters, problems);
  EXPECT_TRUE(problems.empty());
  std::memset(&parameters.tensors[4][10], 0, 2);
  check_parameters(layout, parameters, problems);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0], HasSubstr("weight_smooth_factor holds zeros"));
}

TEST(ReadOnlyFormats, RefuseToBeWritten) {
  size_t found = 0;
  for (const Format* format : all_formats()) {
    if (format->writable) continue;
    ++found;
    EXPECT_EQ(format->encode, nullptr) << format->name;
    EXPECT_EQ(format->error_bound, nullptr) << format->name;
    EXPECT_THAT(format->summary, HasSubstr("read only"));
    for (const Shape& shape : {Shape{256, 256}, Shape{128, 4096}}) {
      const Description description = format->describe({shape, LayerKind::linear}, complete_options(*format, {}));
      EXPECT_FALSE(description.layout.has_value()) << format->name;
      EXPECT_THAT(description.refusal, HasSubstr("only read")) << format->name;
    }
  }
  EXPECT_GE(found, 2u);
}

}  // namespace
}  // namespace mezzotint::formats
