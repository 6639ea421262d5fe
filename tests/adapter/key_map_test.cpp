// Names of layers: those that ComfyUI's key maps know (make_key_maps.py), and what becomes of those that nobody knows.
#include "mezzotint/adapter/key_map.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "adapter/adapter_file.h"
#include "mezzotint/base/error.h"

namespace mezzotint::adapter {
namespace {

using test::TemporaryFolder;

/// A checkpoint of bf16 zeros.
checkpoint::Model write_checkpoint(const TemporaryFolder& folder, const std::map<std::string, Shape>& tensors) {
  test::RawFile file;
  for (const auto& [name, shape] : tensors)
    file.tensors.emplace_back(name, test::RawTensor{"BF16", shape, std::string(2 * *element_count(shape), '\0')});
  test::write_raw(folder / "model.safetensors", file);
  return checkpoint::Model::open(folder / "model.safetensors");
}

struct KeyMapCase {
  std::string name;
  std::map<std::string, Shape> tensors;
  std::vector<std::pair<std::string, Target>> keys;
};

void PrintTo(const KeyMapCase& map, std::ostream* out) {
  *out << map.name;
}

std::vector<KeyMapCase> comfyui_key_maps() {
  std::vector<KeyMapCase> cases;
  for (const auto& file : std::filesystem::directory_iterator(MEZZOTINT_SOURCE_DIR "/tests/adapter/key_maps")) {
    const nlohmann::json golden = test::read_json(file.path().string());
    KeyMapCase map{file.path().stem().string(), golden["tensors"].get<std::map<std::string, Shape>>(), {}};
    for (const auto& [key, value] : golden["keys"].items()) {
      Target target{value[0], 0, 0, false};
      if (value.size() > 1) target = {value[0], value[1], value[2], value[3]};
      map.keys.emplace_back(key, std::move(target));
    }
    cases.push_back(std::move(map));
  }
  return cases;
}

class ComfyUiKeyMapTest : public testing::TestWithParam<KeyMapCase> {};

TEST_P(ComfyUiKeyMapTest, KnowsEveryName) {
  const TemporaryFolder folder;
  const checkpoint::Model model = write_checkpoint(folder, GetParam().tensors);
  const KeyMap map(model);
  ASSERT_GT(GetParam().keys.size(), 5u);
  for (const auto& [key, expected] : GetParam().keys) {
    const std::optional<Target> found = map.find(key);
    ASSERT_TRUE(found) << key;
    EXPECT_EQ(found->layer, expected.layer) << key;
    EXPECT_EQ(found->row0, expected.row0) << key;
    EXPECT_EQ(found->rows, expected.rows) << key;
    EXPECT_EQ(found->swap_halves, expected.swap_halves) << key;
    EXPECT_NE(map.tensor(*found, Parameter::weight), io::Source::npos) << key;
    EXPECT_FALSE(map.find(key + "x")) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ComfyUiKeyMapTest, testing::ValuesIn(comfyui_key_maps()),
                         [](const auto& map) { return map.param.name; });

const std::map<std::string, Shape> kFluxTensors = {
    {"double_blocks.0.img_attn.qkv.weight", {24, 8}}, {"double_blocks.0.img_attn.qkv.bias", {24}},
    {"double_blocks.0.img_attn.proj.weight", {8, 8}}, {"final_layer.adaLN_modulation.1.weight", {16, 8}},
    {"single_blocks.0.linear1.weight", {56, 8}},      {"img_in.weight", {8, 4}},
};

TEST(KeyMapTest, FindsModelsWithoutOrWithOtherPrefixes) {
  for (const std::string prefix : {"", "diffusion_model.", "model.diffusion_model.", "transformer.", "net."}) {
    const TemporaryFolder folder;
    std::map<std::string, Shape> tensors;
    for (const auto& [name, shape] : kFluxTensors) tensors[prefix + name] = shape;
    const checkpoint::Model model = write_checkpoint(folder, tensors);
    const KeyMap map(model);
    for (const std::string key :
         {"diffusion_model.double_blocks.0.img_attn.proj", "lora_unet_double_blocks_0_img_attn_proj",
          "transformer.transformer_blocks.0.attn.to_out.0", "double_blocks.0.img_attn.proj"}) {
      const std::optional<Target> found = map.find(key);
      ASSERT_TRUE(found) << prefix << " " << key;
      EXPECT_EQ(found->layer, prefix + "double_blocks.0.img_attn.proj");
    }
    EXPECT_FALSE(map.find("lora_te_double_blocks_0_img_attn_proj"));
  }
}

TEST(KeyMapTest, ReadsOpenClipByTransformersNames) {
  const TemporaryFolder folder;
  const std::string p = "conditioner.embedders.1.model.transformer.resblocks.0.";
  const checkpoint::Model model = write_checkpoint(
      folder, {{p + "attn.in_proj_weight", {12, 4}},
               {p + "attn.in_proj_bias", {12}},
               {p + "attn.out_proj.weight", {1280, 1280}},
               {p + "mlp.c_fc.weight", {16, 4}},
               {"conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight", {768, 768}},
               {"model.diffusion_model.input_blocks.0.0.weight", {4, 4, 3, 3}}});
  const KeyMap map(model);
  const std::optional<Target> k = map.find("lora_te2_text_model_encoder_layers_0_self_attn_k_proj");
  ASSERT_TRUE(k);
  EXPECT_EQ(*k, (Target{p + "attn.in_proj", 4, 4, false}));
  EXPECT_EQ(model.source().tensors()[map.tensor(*k, Parameter::weight)].name, p + "attn.in_proj_weight");
  EXPECT_EQ(model.source().tensors()[map.tensor(*k, Parameter::bias)].name, p + "attn.in_proj_bias");
  ASSERT_TRUE(map.find("text_encoder_2.text_model.encoder.layers.0.mlp.fc1"));
  EXPECT_EQ(map.find("text_encoder_2.text_model.encoder.layers.0.mlp.fc1")->layer, p + "mlp.c_fc");
  ASSERT_TRUE(map.find("lora_te1_text_model_encoder_layers_0_self_attn_q_proj"));
}

TEST(KeyMapTest, NamesThatUnderscoresDoNotTellApartMeanNothing) {
  const TemporaryFolder folder;
  const checkpoint::Model model =
      write_checkpoint(folder, {{"blocks.0.a.b.weight", {4, 4}}, {"blocks.0.a_b.weight", {4, 4}}});
  const KeyMap map(model);
  EXPECT_FALSE(map.find("lora_unet_blocks_0_a_b"));
  ASSERT_TRUE(map.find("blocks.0.a_b"));
  EXPECT_EQ(map.find("blocks.0.a_b")->layer, "blocks.0.a_b");
}

test::NamedTensors lora_of(const std::string& target, int64_t rows, int64_t cols, uint64_t seed = 1) {
  return {{target + ".lora_B.weight", test::random_tensor({rows, 2}, seed)},
          {target + ".lora_A.weight", test::random_tensor({2, cols}, seed + 1)}};
}

TEST(KeyMapTest, MatchesSaysWhatIsLeftOut) {
  const TemporaryFolder folder;
  const checkpoint::Model model = write_checkpoint(folder, kFluxTensors);
  test::NamedTensors tensors;
  for (const auto& [target, rows] : {std::pair{"transformer.transformer_blocks.0.attn.to_k", 8},
                                     {"transformer.single_transformer_blocks.0.proj_mlp", 32},
                                     {"transformer.nowhere", 8},
                                     {"transformer.transformer_blocks.0.attn.to_v", 9},
                                     {"lora_te1_text_model_encoder_layers_0_mlp_fc1", 8}})
    for (auto& tensor : lora_of(target, rows, 8)) tensors.push_back(std::move(tensor));
  tensors.push_back({"transformer.transformer_blocks.0.attn.to_k.diff_b", test::random_tensor({8}, 9)});
  tensors.push_back({"transformer.transformer_blocks.0.attn.to_out.0.diff_b", test::random_tensor({8}, 9)});
  tensors.push_back({"transformer.x.vera_lambda_b", test::random_tensor({8}, 9)});
  const AdapterFile file = test::adapter_file(folder, tensors);
  const Matching matching = KeyMap(model).match(file);
  ASSERT_EQ(matching.matches.size(), 3u);
  std::map<std::string, const Match*> by_target;
  for (const Match& match : matching.matches) {
    const Patch& patch = file.patches()[match.patch];
    by_target[patch.target + (patch.parameter == Parameter::bias ? " bias" : "")] = &match;
  }
  const Match* bias = by_target["transformer.transformer_blocks.0.attn.to_k bias"];
  ASSERT_TRUE(bias);  // ComfyUI makes the key "().bias" of it
  EXPECT_EQ(model.source().tensors()[bias->tensor].name, "double_blocks.0.img_attn.qkv.bias");
  EXPECT_EQ(bias->target.row0, 8);
  EXPECT_EQ(bias->target.rows, 8);
  const Match* mlp = by_target["transformer.single_transformer_blocks.0.proj_mlp"];
  ASSERT_TRUE(mlp);
  EXPECT_EQ(mlp->target.row0, 24);
  EXPECT_EQ(mlp->target.rows, 32);

  std::map<std::string, std::string> reasons;
  for (const UnmatchedPatch& patch : matching.unmatched) reasons[file.patches()[patch.patch].target] = patch.reason;
  EXPECT_EQ(reasons["transformer.nowhere"], "the model has no layer of this name");
  EXPECT_EQ(reasons["transformer.transformer_blocks.0.attn.to_v"], "it is made for a weight of 9x8, this is 8x8");
  EXPECT_EQ(reasons["lora_te1_text_model_encoder_layers_0_mlp_fc1"],
            "it is for a text encoder, which the model is without");
  EXPECT_EQ(reasons["transformer.transformer_blocks.0.attn.to_out.0"], "the layer has no bias");
  EXPECT_EQ(reasons.size(), 4u);

  const std::string text = summary(file, matching);
  EXPECT_TRUE(text.starts_with("adapter.safetensors: 3 of 7 patches (1 diff, 2 lora) on 3 tensors\n")) << text;
  EXPECT_NE(text.find("VeRA"), std::string::npos) << text;
  EXPECT_THROW(require_all(file, matching), Error);
}

TEST(KeyMapTest, StrictTakesWhatIsWhole) {
  const TemporaryFolder folder;
  const checkpoint::Model model = write_checkpoint(folder, kFluxTensors);
  const AdapterFile file = test::adapter_file(folder, lora_of("lora_unet_double_blocks_0_img_attn_proj", 8, 8));
  EXPECT_NO_THROW(require_all(file, KeyMap(model).match(file)));
}

// The slices of a fused weight, and halves that change places, against plain arithmetic.
TEST(KeyMapTest, SlicesAndSwappedHalvesReachTheirRows) {
  const TemporaryFolder folder;
  const checkpoint::Model model = write_checkpoint(folder, kFluxTensors);
  for (const auto& [key, rows] : {std::pair{"transformer.transformer_blocks.0.attn.to_k", int64_t{8}},
                                  {"transformer.norm_out.linear", int64_t{16}}}) {
    const AdapterFile file = test::adapter_file(folder, lora_of(key, rows, 8));
    const Matching matching = KeyMap(model).match(file);
    ASSERT_EQ(matching.matches.size(), 1u);
    const Match& match = matching.matches[0];
    Stack stack(match.shape);
    stack.add(load(file, file.patches()[0], stack.shape_of(match.target)), 1, match.target);
    const std::vector<float> delta =
        test::merged(stack, std::vector<float>(static_cast<size_t>(matrix_rows(match.shape) * 8)));
    const Factors factors = file.read(file.patches()[0]);
    const Tensor &up = factors.at("lora_up"), &down = factors.at("lora_down");
    for (int64_t r = 0; r < matrix_rows(match.shape); ++r) {
      const int64_t own = match.target.swap_halves ? (r + 8) % 16 : r - 8;
      for (int64_t c = 0; c < 8; ++c) {
        const float expected =
            own < 0 || own >= rows ? 0 : up.row(own)[0] * down.row(0)[c] + up.row(own)[1] * down.row(1)[c];
        EXPECT_NEAR(delta[static_cast<size_t>(r * 8 + c)], expected, 1e-6) << key << " " << r;
      }
    }
  }
}

TEST(KeyMapTest, KnowsWanByDiffusersNames) {
  const TemporaryFolder folder;
  const checkpoint::Model model = write_checkpoint(folder, {{"blocks.0.self_attn.q.weight", {4, 4}},
                                                            {"blocks.0.cross_attn.o.weight", {4, 4}},
                                                            {"blocks.0.cross_attn.k_img.weight", {4, 4}},
                                                            {"blocks.0.ffn.0.weight", {8, 4}},
                                                            {"blocks.0.norm3.weight", {4}},
                                                            {"time_projection.1.weight", {24, 4}},
                                                            {"head.head.weight", {4, 4}}});
  const KeyMap map(model);
  for (const auto& [theirs, ours] : {std::pair{"blocks.0.attn1.to_q", "blocks.0.self_attn.q"},
                                     {"blocks.0.attn2.to_out.0", "blocks.0.cross_attn.o"},
                                     {"blocks.0.attn2.add_k_proj", "blocks.0.cross_attn.k_img"},
                                     {"blocks.0.ffn.net.0.proj", "blocks.0.ffn.0"},
                                     {"blocks.0.norm2", "blocks.0.norm3"},
                                     {"condition_embedder.time_proj", "time_projection.1"},
                                     {"proj_out", "head.head"}}) {
    for (const std::string prefix : {"transformer.", "diffusion_model.", ""}) {
      const std::optional<Target> found = map.find(prefix + theirs);
      ASSERT_TRUE(found) << prefix << theirs;
      EXPECT_EQ(found->layer, ours);
    }
  }
  EXPECT_FALSE(map.find("transformer.blocks.0.attn2.to_q"));
}

// Lumina 2 has fewer heads for keys and values; ComfyUI cuts three equal slices.
TEST(KeyMapTest, SlicesWithFewerHeads) {
  const TemporaryFolder folder;
  const checkpoint::Model model = write_checkpoint(folder, {{"layers.0.attention.qkv.weight", {16, 8}},
                                                            {"layers.0.attention.out.weight", {8, 8}},
                                                            {"noise_refiner.0.attention.qkv.weight", {24, 8}},
                                                            {"noise_refiner.0.attention.out.weight", {8, 8}}});
  const KeyMap map(model);
  EXPECT_EQ(map.find("transformer.layers.0.attention.to_k"), (Target{"layers.0.attention.qkv", 8, 4, false}));
  EXPECT_EQ(map.find("transformer.layers.0.attention.to_v"), (Target{"layers.0.attention.qkv", 12, 4, false}));
  EXPECT_EQ(map.find("transformer.noise_refiner.0.attention.to_v"),
            (Target{"noise_refiner.0.attention.qkv", 16, 8, false}));
}

// Rotations of blocks that halves do not contain are applied in the adapter's order, in one piece.
TEST(KeyMapTest, SwappedHalvesOfRotations) {
  for (const Shape& blocks : {Shape{8, 2, 2}, Shape{1, 16, 16}}) {
    const TemporaryFolder folder;
    const AdapterFile file = test::adapter_file(folder, {{"x.oft_blocks", test::random_tensor(blocks, 5)}});
    const Tensor weight = test::random_tensor({16, 3}, 6);
    Stack swapped(weight.shape), plain(weight.shape);
    swapped.add(load(file, file.patches()[0], weight.shape), 1, {"x", 0, 0, true});
    plain.add(load(file, file.patches()[0], weight.shape), 1, {"x", 0, 0, false});
    std::vector<float> turned = weight.values;
    std::rotate(turned.begin(), turned.begin() + 24, turned.end());
    std::vector<float> expected = test::merged(plain, turned);
    std::rotate(expected.begin(), expected.begin() + 24, expected.end());
    EXPECT_EQ(test::merged(swapped, weight.values), expected);
    EXPECT_NE(test::merged(plain, weight.values), expected);
  }
}

}  // namespace
}  // namespace mezzotint::adapter
