#include <cmath>

#include "convert/conversion.h"
#include "mezzotint/convert/budget/costs.h"
#include "mezzotint/convert/budget/priors.h"

namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::RawTensor;
using test::test_rng;

/// ||decoded - W||^2 / ||W||^2 of the whole weight by the in-memory path, columns weighted.
double whole_error(const std::string& format, const RawTensor& tensor, const std::vector<float>& weight = {}) {
  const auto stored = quantized(format, tensor, "w");
  const auto decoded = formats::dequantize(stored.layout, stored.parameters, 1);
  double error = 0, norm = 0;
  const auto cols = static_cast<size_t>(tensor.shape.back());
  for (size_t i = 0; i < decoded.size(); ++i) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, tensor.bytes.data() + 2 * i, 2);  // bf16
    float value = 0;
    std::memcpy(&value, &bits, 4);
    const double w = weight.empty() ? 1 : static_cast<double>(weight[i % cols]);
    const double e = static_cast<double>(decoded[i]) - static_cast<double>(value);
    error += w * e * e;
    norm += w * static_cast<double>(value) * static_cast<double>(value);
  }
  return error / norm;
}

class Measure : public Conversion {
 protected:
  QuantizationError measure(const RawTensor& tensor, const std::string& format, int64_t granule, int64_t most_rows,
                            const std::vector<float>& weight = {}) {
    RawFile file;
    file.tensors.emplace_back("w.weight", tensor);
    test::write_raw(in(), file);
    const auto model = checkpoint::Model::open(in());
    const checkpoint::WeightValues values(model, size_t{0});
    const auto layout = layout_of(format, tensor.shape).value();
    MeasuredRows rows(values, layout, granule, most_rows);
    EXPECT_TRUE(rows.fits(layout));
    rows.load();
    rows_ = rows.rows();
    return rows.measure(layout, {.effort = choose_method("", ConvertOptions().effort, layout, nullptr).effort}, {},
                        weight);
  }
  int64_t rows_ = 0;
};

const std::vector<std::string> kMeasuredFormats = {"nvfp4",        "mxfp8",          "float8_e4m3fn", "int8_row",
                                                   "int8_convrot", "int8_blockwise", "bf16"};

TEST_F(Measure, AllRowsGiveTheErrorOfTheInMemoryPath) {
  auto rng = test_rng();
  const RawTensor tensor = weight(rng, {384, 256});
  for (const std::string& format : kMeasuredFormats)
    for (const int64_t most_rows : {int64_t{0}, int64_t{1000}}) {
      const QuantizationError error = measure(tensor, format, 128, most_rows);
      EXPECT_EQ(rows_, 384);
      EXPECT_NEAR(error.relative_squared(), whole_error(format, tensor), 1e-12 + 1e-9 * error.relative_squared())
          << format;
    }
  // A bank of experts too, whose tiles must not span two.
  const RawTensor bank = weight(rng, {3, 40, 64});
  for (const std::string format : {"nvfp4", "float8_e4m3fn", "int8_row"}) {
    const QuantizationError error = measure(bank, format, 16, 0);
    EXPECT_NEAR(error.relative_squared(), whole_error(format, bank), 1e-9 * error.relative_squared()) << format;
  }
}

TEST_F(Measure, ASampleIsNearTheWhole) {
  auto rng = test_rng();
  const RawTensor tensor = weight(rng, {2048, 256});
  for (const std::string& format : kMeasuredFormats) {
    const double error = measure(tensor, format, 128, 256).relative_squared();
    EXPECT_EQ(rows_, 256);
    const double whole = whole_error(format, tensor);
    EXPECT_NEAR(error, whole, 0.05 * whole) << format;
  }
}

// Rows differ: runs from all over the weight see it, the first rows alone do not.
TEST_F(Measure, TheSampleIsSpreadOverTheRows) {
  auto rng = test_rng();
  constexpr size_t kRows = 1024, kCols = 64;
  std::vector<float> values(kRows * kCols);
  std::normal_distribution<float> normal;
  for (size_t r = 0; r < kRows; ++r)
    for (size_t c = 0; c < kCols; ++c)
      // Every row of the second half has an outlier, which ruins a scale per row.
      values[r * kCols + c] = normal(rng) + (r >= kRows / 2 && c == 0 ? 60.0f : 0.0f);
  const RawTensor tensor{"BF16", {kRows, kCols}, text_of(test::as_source(values, DType::bf16).bytes)};
  const double whole = whole_error("int8_row", tensor);
  EXPECT_NEAR(measure(tensor, "int8_row", 16, 128).relative_squared(), whole, 0.1 * whole);
  RawTensor first = tensor;
  first.shape[0] = 128;
  first.bytes.resize(128 * kCols * 2);
  EXPECT_GT(std::abs(whole_error("int8_row", first) - whole), 0.1 * whole);
}

TEST_F(Measure, ColumnsCountAsTheirWeightsSay) {
  auto rng = test_rng();
  const RawTensor tensor = weight(rng, {64, 64});
  std::vector<float> columns(64, 0.25f);
  for (size_t i = 0; i < 64; i += 3) columns[i] = 9;
  const QuantizationError error = measure(tensor, "nvfp4", 16, 0, columns);
  const double expected = whole_error("nvfp4", tensor, columns);
  EXPECT_NEAR(error.out_relative_squared(), expected, 1e-9 * expected);
  EXPECT_NEAR(error.relative_squared(), whole_error("nvfp4", tensor), 1e-12);
  EXPECT_NE(error.out_relative_squared(), error.relative_squared());
}

TEST_F(Measure, ValuesThatAreNotFiniteAndZerosAreHarmless) {
  std::vector<float> values(64 * 64, 1.0f);
  values[5] = std::numeric_limits<float>::infinity();
  values[700] = std::numeric_limits<float>::quiet_NaN();
  const RawTensor odd{"BF16", {64, 64}, text_of(test::as_source(values, DType::bf16).bytes)};
  const RawTensor zero{"BF16", {64, 64}, std::string(2 * 64 * 64, '\0')};
  for (const std::string format : {"nvfp4", "int8_row", "float8_e4m3fn"}) {
    const double error = measure(odd, format, 16, 0).relative_squared();
    EXPECT_TRUE(std::isfinite(error)) << format;
    EXPECT_EQ(measure(zero, format, 16, 0).relative_squared(), 0) << format;
  }
}

TEST(Priors, LayersThatWriteIntoTheStreamCountTwice) {
  const std::vector<std::string> twice = {
      "model.diffusion_model.blocks.7.self_attn.o",
      "blocks.7.cross_attn.o",
      "blocks.7.ffn.2",
      "double_blocks.7.img_attn.proj",
      "double_blocks.7.txt_mlp.2",
      "single_blocks.7.linear2",
      "transformer_blocks.7.attn1.to_out.0",
      "transformer_blocks.7.audio_ff.net.2",
      "transformer_blocks.7.attn.to_add_out",
      "layers.7.attention.out",
      "layers.7.feed_forward.w2",
      "double_blocks.7.img_attn_proj",
      "double_blocks.7.img_mlp.fc2",
      "encoder.block.7.layer.0.SelfAttention.o",
      "encoder.block.7.layer.1.DenseReluDense.wo",
      "model.layers.7.mlp.down_proj",
      "model.layers.7.self_attn.o_proj",
      "transformer.resblocks.7.mlp.c_proj",
      "text_model.encoder.layers.7.self_attn.out_proj",
  };
  const std::vector<std::string> once = {
      "blocks.7.self_attn.q",
      "blocks.7.ffn.0",
      "double_blocks.7.img_attn.qkv",
      "single_blocks.7.linear1",
      "layers.7.feed_forward.w1",
      "layers.7.attention.qkv",
      "transformer_blocks.7.attn1.to_q",
      "model.layers.7.mlp.up_proj",
      "transformer_blocks.7.ff.net.0.proj",
  };
  for (const auto& [names, factor] : {std::pair{twice, 2.0}, std::pair{once, 1.0}})
    for (const std::string& name : names) {
      // Blocks around it, so that it is in the middle of its stack.
      std::string before = name, after = name;
      before[name.find('7')] = '6';
      after[name.find('7')] = '8';
      const auto priors = priors_of(std::vector<std::string>{before, name, after});
      EXPECT_EQ(priors[1], factor) << name;
      EXPECT_EQ(priors[0], factor * kEndBlockPrior) << name;
      EXPECT_EQ(priors[2], factor * kEndBlockPrior) << name;
    }
}

TEST(Priors, BlocksAreNumbersInNames) {
  EXPECT_EQ(block_of("model.blocks.12.ffn.0"), "model.blocks.12");
  EXPECT_EQ(block_of("input_blocks.4.1.proj"), "input_blocks.4");
  EXPECT_EQ(block_of("final.linear"), "final.linear");
  EXPECT_EQ(block_of("x.12"), "x.12");
  // By number, not by text: 10 comes behind 9.
  const auto priors = priors_of(std::vector<std::string>{"b.0.q", "b.9.q", "b.10.q", "other"});
  EXPECT_EQ(priors, (std::vector<double>{2, 1, 2, 1}));
}

}  // namespace
}  // namespace mezzotint::convert
