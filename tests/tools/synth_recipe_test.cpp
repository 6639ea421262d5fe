#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "mezzotint/base/error.h"
#include "synth/recipe.h"

namespace mezzotint::synth {
namespace {

namespace fs = std::filesystem;

const fs::path kShapes = fs::path(MEZZOTINT_SOURCE_DIR) / "tools" / "shapes";

ShapeFile shape(const std::string& model) {
  return read_shape_file(kShapes / (model + ".json"));
}

std::map<std::string, io::TensorSpec> by_name(const std::vector<io::TensorSpec>& specs) {
  std::map<std::string, io::TensorSpec> out;
  for (const auto& spec : specs) EXPECT_TRUE(out.emplace(spec.name, spec).second) << spec.name << " twice";
  return out;
}

uint64_t elements(const std::vector<io::TensorSpec>& specs) {
  uint64_t sum = 0;
  for (const auto& spec : specs) sum += element_count(spec.shape).value();
  return sum;
}

// Counts that ComfyUI's own classes gave; 2515 tensors and 3,468,837,945 elements are SDXL 1.0's published file.
struct Published {
  const char* model;
  size_t tensors;
  uint64_t elements;
};
constexpr Published kPublished[] = {
    {"chroma", 643, 8899983424},           {"flux1-dev", 780, 11901408320},
    {"flux2-dev", 299, 32223281152},       {"hunyuan-video", 856, 12821012544},
    {"ltx-2", 3568, 19585115392},          {"ltx-video-13b", 1215, 13042569344},
    {"ltx-video-2b", 715, 1923385472},     {"qwen-image", 1933, 20430401088},
    {"sdxl-base", 2515, 3468837945},       {"t5-xxl", 219, 4762310656},
    {"umt5-xxl", 243, 5685458649},         {"wan2.1-i2v-14b", 1303, 16394878784},
    {"wan2.1-t2v-14b", 1095, 14288491584}, {"wan2.2-i2v-14b", 1095, 14288901184},
    {"wan2.2-ti2v-5b", 825, 4999787712},   {"z-image", 453, 6154908736},
    {"chroma-radiance", 658, 9506132227},  {"ideogram4", 458, 9279288448},
    {"krea2", 430, 12820073036},           {"lens", 1264, 4104225152},
};

TEST(SynthRecipe, EveryShapeFileExpandsToThePublishedModel) {
  std::set<std::string> stored;
  for (const auto& entry : fs::directory_iterator(kShapes))
    if (entry.path().extension() == ".json") stored.insert(entry.path().stem().string());
  for (const auto& [model, tensors, count] : kPublished) {
    const auto specs = expand(shape(model), {});
    EXPECT_EQ(by_name(specs).size(), tensors) << model;
    EXPECT_EQ(elements(specs), count) << model;
    stored.erase(model);
  }
  EXPECT_TRUE(stored.empty()) << "no expectation for " << *stored.begin();
}

TEST(SynthRecipe, WanHasItsNamesAndShapes) {
  const auto wan = by_name(expand(shape("wan2.2-ti2v-5b"), {}));
  EXPECT_EQ(wan.at("patch_embedding.weight").shape, (Shape{3072, 48, 1, 2, 2}));
  EXPECT_EQ(wan.at("text_embedding.0.weight").shape, (Shape{3072, 4096}));
  EXPECT_EQ(wan.at("time_projection.1.weight").shape, (Shape{18432, 3072}));
  EXPECT_EQ(wan.at("head.head.weight").shape, (Shape{192, 3072}));
  for (const char* block : {"blocks.0.", "blocks.29."}) {
    EXPECT_EQ(wan.at(std::string(block) + "self_attn.q.weight").shape, (Shape{3072, 3072}));
    EXPECT_EQ(wan.at(std::string(block) + "ffn.0.weight").shape, (Shape{14336, 3072}));
    EXPECT_EQ(wan.at(std::string(block) + "ffn.2.weight").shape, (Shape{3072, 14336}));
    EXPECT_EQ(wan.at(std::string(block) + "modulation").shape, (Shape{1, 6, 3072}));
  }
  EXPECT_FALSE(wan.contains("blocks.30.self_attn.q.weight"));
  EXPECT_EQ(wan.at("blocks.7.ffn.0.bias").dtype, DType::bf16);
}

TEST(SynthRecipe, BlocksCanBeFewerOrMoreThanPublished) {
  const auto two = by_name(expand(shape("wan2.2-ti2v-5b"), {.blocks = 2}));
  EXPECT_EQ(two.size(), 825u - 28u * 27u);
  EXPECT_TRUE(two.contains("blocks.1.norm3.weight"));
  EXPECT_FALSE(two.contains("blocks.2.norm3.weight"));

  // Block 0 of T5 alone has the position bias; blocks beyond the last one look like the last one.
  const auto t5 = by_name(expand(shape("t5-xxl"), {.blocks = 30}));
  EXPECT_EQ(t5.size(), 219u + 6u * 9u);
  EXPECT_TRUE(t5.contains("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"));
  EXPECT_FALSE(t5.contains("encoder.block.29.layer.0.SelfAttention.relative_attention_bias.weight"));
  EXPECT_EQ(t5.at("encoder.block.29.layer.1.DenseReluDense.wi_0.weight").shape, (Shape{10240, 4096}));

  const auto none = by_name(expand(shape("flux1-dev"), {.blocks = 0}));
  EXPECT_TRUE(none.contains("img_in.weight"));
  EXPECT_TRUE(std::none_of(none.begin(), none.end(), [](auto& t) { return t.first.find("blocks.") == 0; }));
}

TEST(SynthRecipe, ScalingKeepsRatiosAndMultiplesOf128) {
  EXPECT_EQ(scaled_width(3072, 0.25), 768);
  EXPECT_EQ(scaled_width(14336, 0.1), 1408);
  EXPECT_EQ(scaled_width(3072, 0.001), 128);
  EXPECT_EQ(scaled_width(320, 0.5), 192);  // 160 lies between 128 and 192, multiples of gcd(320, 128) = 64

  const auto flux = by_name(expand(shape("flux1-dev"), {.scale = 0.25}));
  EXPECT_EQ(flux.at("single_blocks.37.linear1.weight").shape, (Shape{7 * 768, 768}));
  EXPECT_EQ(flux.at("single_blocks.37.linear2.weight").shape, (Shape{768, 5 * 768}));
  EXPECT_EQ(flux.at("txt_in.weight").shape, (Shape{768, 1024}));
  EXPECT_EQ(flux.at("img_in.weight").shape, (Shape{768, 64}));
  EXPECT_EQ(flux.at("double_blocks.0.img_attn.norm.key_norm.scale").shape, (Shape{128}));

  const auto wan = by_name(expand(shape("wan2.2-ti2v-5b"), {.scale = 0.1}));
  EXPECT_EQ(wan.at("blocks.0.ffn.0.weight").shape, (Shape{1408, 256}));
  EXPECT_EQ(wan.at("blocks.0.ffn.0.bias").shape, (Shape{1408}));
  EXPECT_EQ(wan.at("time_projection.1.weight").shape, (Shape{6 * 256, 256}));

  const auto t5 = by_name(expand(shape("t5-xxl"), {.scale = 0.25}));
  EXPECT_EQ(t5.at("shared.weight").shape, (Shape{32128, 1024}));
}

TEST(SynthRecipe, SizeChoosesTheNumberOfBlocks) {
  for (const char* model : {"wan2.2-ti2v-5b", "flux1-dev", "qwen-image"}) {
    for (const uint64_t size : {3'000'000'000ull, 30'000'000'000ull}) {
      const auto bytes = data_bytes(expand(shape(model), {.size = size}));
      const double step = 1.1e9;  // no step of these models is larger than 1.1 GB
      EXPECT_NEAR(static_cast<double>(bytes), static_cast<double>(size), step / 2) << model;
    }
  }
  // Stacks keep their proportion: 19 double and 38 single blocks.
  const auto flux = by_name(expand(shape("flux1-dev"), {.size = 48'000'000'000}));
  int64_t doubles = 0, singles = 0;
  while (flux.contains("double_blocks." + std::to_string(doubles) + ".img_mlp.0.bias")) ++doubles;
  while (flux.contains("single_blocks." + std::to_string(singles) + ".linear1.bias")) ++singles;
  EXPECT_GT(singles, 38);
  EXPECT_LE(std::abs(2 * doubles - singles), 1);
  // Less than one block each is not to be had.
  EXPECT_EQ(expand(shape("flux1-dev"), {.size = 1}).size(), expand(shape("flux1-dev"), {.blocks = 1}).size());
}

TEST(SynthRecipe, DtypeAndPrefixApplyToWhatTheyShould) {
  const auto sdxl = by_name(expand(shape("sdxl-base"), {.dtype = DType::f32}));
  EXPECT_EQ(sdxl.at("conditioner.embedders.0.transformer.text_model.embeddings.position_ids").dtype, DType::i64);
  EXPECT_EQ(sdxl.at("first_stage_model.decoder.conv_in.weight").dtype, DType::f32);
  EXPECT_EQ(sdxl.at("conditioner.embedders.1.model.logit_scale").shape, Shape{});
  const auto umt5 = by_name(expand(shape("umt5-xxl"), {.dtype = DType::bf16, .prefix = "te."}));
  EXPECT_EQ(umt5.at("te.spiece_model").dtype, DType::u8);
  EXPECT_EQ(umt5.at("te.shared.weight").dtype, DType::bf16);
  const auto ltx = by_name(expand(shape("ltx-video-2b"), {}));
  EXPECT_TRUE(ltx.contains("model.diffusion_model.transformer_blocks.27.attn1.to_q.weight"));
}

std::string error_name(auto&& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(e.name());
  }
  return "";
}

TEST(SynthRecipe, ContradictionsAreErrors) {
  const auto wan = shape("wan2.2-ti2v-5b");
  EXPECT_EQ(error_name([&] { expand(wan, {.blocks = 1, .size = 100}); }), "recipe");
  EXPECT_EQ(error_name([&] { expand(wan, {.blocks = -1}); }), "recipe");
  EXPECT_EQ(error_name([&] { expand(wan, {.scale = 0}); }), "recipe");
  EXPECT_EQ(error_name([&] { read_shape_file(kShapes / "no-such-model.json"); }), "shape-file");
  EXPECT_EQ(error_name([&] { read_shape_file(kShapes / "README.md"); }), "shape-file");
}

}  // namespace
}  // namespace mezzotint::synth
