// Adapter files: dialects, whole-file rewrites, where alphas come from, and what is left out.
#include "mezzotint/adapter/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "adapter/adapter_file.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/error.h"

namespace mezzotint::adapter {
namespace {

using test::adapter_file;
using test::random_tensor;
using test::scalar;
using test::TemporaryFolder;

const Tensor kUp = random_tensor({4, 2}, 1), kDown = random_tensor({2, 3}, 2), kWeight = random_tensor({4, 3}, 3);

/// W + scale * up * down in double.
std::vector<float> with_lora(double scale, const Tensor& up = kUp, const Tensor& down = kDown) {
  std::vector<float> expected;
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 3; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < 2; ++k) sum += static_cast<double>(up.row(r)[k]) * static_cast<double>(down.row(k)[c]);
      expected.push_back(static_cast<float>(static_cast<double>(kWeight.row(r)[c]) + scale * sum));
    }
  }
  return expected;
}

double merge_error(const AdapterFile& file, const std::vector<float>& expected, double strength = 1) {
  return test::relative_error(test::merged(test::stack_of(file, kWeight.shape, strength), kWeight.values), expected);
}

constexpr double kClose = 1e-6;

struct Dialect {
  const char *up, *down, *variant;
};

TEST(AdapterFileTest, ReadsEveryDialectOfLora) {
  for (const Dialect& dialect : {Dialect{".lora_up.weight", ".lora_down.weight", ""},
                                 {"_lora.up.weight", "_lora.down.weight", ""},
                                 {".lora_B.weight", ".lora_A.weight", ""},
                                 {".lora.up.weight", ".lora.down.weight", ""},
                                 {".lora_B", ".lora_A", ""},
                                 {".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", ""},
                                 {".lora_B.default.weight", ".lora_A.default.weight", ""},
                                 {".lora_B.style.weight", ".lora_A.style.weight", "style"}}) {
    const TemporaryFolder folder;
    const std::string target = "transformer.blocks.0.to_q";
    const AdapterFile file = adapter_file(
        folder, {{target + dialect.up, kUp}, {target + dialect.down, kDown}, {target + ".alpha", scalar(3)}});
    ASSERT_EQ(file.patches().size(), 1u) << dialect.up;
    const Patch& patch = file.patches()[0];
    EXPECT_EQ(patch.target, target);
    EXPECT_EQ(patch.algorithm->name, "lora");
    EXPECT_EQ(patch.variant, dialect.variant);
    EXPECT_EQ(patch.alpha, dialect.variant == std::string() ? std::optional(3.0) : std::nullopt);
    EXPECT_LT(merge_error(file, with_lora(patch.alpha ? 1.5 : 1)), kClose) << dialect.up;
    EXPECT_GT(merge_error(file, with_lora(1.25)), 100 * kClose);
  }
}

TEST(AdapterFileTest, ReadsFactorsInAnyFloatType) {
  const TemporaryFolder folder;
  test::RawFile raw;
  std::vector<uint16_t> up, down;
  Tensor rounded_up = kUp, rounded_down = kDown;
  for (float& x : rounded_up.values) x = Bf16::decode(up.emplace_back(Bf16::encode(x)));
  for (float& x : rounded_down.values) x = Bf16::decode(down.emplace_back(Bf16::encode(x)));
  raw.tensors = {{"x.lora_up.weight", {"BF16", kUp.shape, test::raw_bytes(up)}},
                 {"x.lora_down.weight", {"BF16", kDown.shape, test::raw_bytes(down)}}};
  test::write_raw(folder / "bf16.safetensors", raw);
  const AdapterFile file = AdapterFile::open(folder / "bf16.safetensors");
  EXPECT_LT(merge_error(file, with_lora(1, rounded_up, rounded_down)), kClose);
  EXPECT_GT(merge_error(file, with_lora(1)), kClose);
}

TEST(AdapterFileTest, DecodesQuantizedFactors) {
  const TemporaryFolder folder;
  test::RawFile raw;
  raw.tensors = {{"x.lora_up.weight", {"F8_E4M3", {4, 2}, std::string(8, '\x38')}},  // 1.0
                 {"x.lora_up.weight_scale", test::f32_tensor({}, {0.25f})},
                 {"x.lora_down.weight", test::f32_tensor(kDown.shape, kDown.values)}};
  test::write_raw(folder / "fp8.safetensors", raw);
  const AdapterFile file = AdapterFile::open(folder / "fp8.safetensors");
  EXPECT_TRUE(file.unused().empty());
  EXPECT_LT(merge_error(file, with_lora(1, {{4, 2}, std::vector<float>(8, 0.25f)}, kDown)), kClose);
}

TEST(AdapterFileTest, TakesAlphasFromMetadata) {
  const TemporaryFolder folder;
  const std::string metadata =
      R"({"transformer.r": 2, "transformer.lora_alpha": 5, "transformer.alpha_pattern": {"to_k": 8}, "text_encoder.lora_alpha": 1})";
  const AdapterFile file = adapter_file(folder,
                                        {{"transformer.a.to_q.lora_B.weight", kUp},
                                         {"transformer.a.to_q.lora_A.weight", kDown},
                                         {"transformer.a.to_k.lora_B.weight", kUp},
                                         {"transformer.a.to_k.lora_A.weight", kDown},
                                         {"transformer.a.not_to_k.lora_B.weight", kUp},
                                         {"transformer.a.not_to_k.lora_A.weight", kDown},
                                         {"text_encoder.a.lora_B.weight", kUp},
                                         {"text_encoder.a.lora_A.weight", kDown}},
                                        {{"lora_adapter_metadata", metadata}});
  std::map<std::string, double> alphas;
  for (const Patch& patch : file.patches()) alphas[patch.target] = patch.alpha.value_or(-1);
  EXPECT_EQ(
      alphas,
      (std::map<std::string, double>{
          {"transformer.a.to_q", 5}, {"transformer.a.to_k", 8}, {"transformer.a.not_to_k", 5}, {"text_encoder.a", 1}}));
  EXPECT_EQ(file.notes().size(), 1u);
}

TEST(AdapterFileTest, ReadsPeftFolders) {
  for (const bool stabilized : {false, true}) {
    const TemporaryFolder folder;
    adapter_file(folder, {{"base_model.model.x.lora_B.weight", kUp}, {"base_model.model.x.lora_A.weight", kDown}});
    std::filesystem::rename(folder / "adapter.safetensors", folder / "adapter_model.safetensors");
    std::ofstream(folder / "adapter_config.json")
        << R"({"peft_type": "LORA", "r": 2, "lora_alpha": 3, "use_rslora": )" << (stabilized ? "true}" : "false}");
    const AdapterFile file = AdapterFile::open(folder.path());
    EXPECT_LT(merge_error(file, with_lora(stabilized ? 3 / std::sqrt(2.0) : 1.5)), kClose);
  }
  const TemporaryFolder folder;
  adapter_file(folder, {{"x.lora_B.weight", kUp}, {"x.lora_A.weight", kDown}});
  std::filesystem::rename(folder / "adapter.safetensors", folder / "adapter_model.safetensors");
  std::ofstream(folder / "adapter_config.json") << R"({"lora_alpha": "many"})";
  EXPECT_THROW(AdapterFile::open(folder.path()), Error);
}

TEST(AdapterFileTest, ScalesTheBiasOfUp) {
  const TemporaryFolder folder;
  const Tensor bias = random_tensor({4}, 7);
  const AdapterFile file = adapter_file(
      folder, {{"x.lora_B.weight", kUp}, {"x.lora_A.weight", kDown}, {"x.lora_B.bias", bias}, {"x.alpha", scalar(6)}});
  ASSERT_EQ(file.patches().size(), 2u);
  const Patch& patch = file.patches()[1];
  EXPECT_EQ(patch.parameter, Parameter::bias);
  std::vector<float> values(4);
  load(file, patch, {4})->apply(0, 4, values.data(), 0.5);
  for (size_t i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(values[i], 1.5f * bias.values[i]);  // 0.5 * 6 / 2
}

TEST(AdapterFileTest, AppliesEveryPatchOfATarget) {
  const TemporaryFolder folder;
  const Tensor diff = random_tensor({4, 3}, 4);
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", kUp},
                                                 {"x.lora_down.weight", kDown},
                                                 {"x.diff", diff},
                                                 {"x.alpha", scalar(2)},
                                                 {"x.diff_b", random_tensor({4}, 5)}});
  ASSERT_EQ(file.patches().size(), 3u);
  EXPECT_TRUE(file.unused().empty());
  std::vector<float> expected = with_lora(1);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += diff.values[i];
  Stack stack(kWeight.shape);
  for (const Patch& patch : file.patches())
    if (patch.parameter == Parameter::weight) stack.add(load(file, patch, kWeight.shape), 1, {"x", 0, 0, false});
  EXPECT_LT(test::relative_error(test::merged(stack, kWeight.values), expected), kClose);
}

TEST(AdapterFileTest, NamesWhatItLeavesOut) {
  const TemporaryFolder folder;
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", kUp},
                                                 {"x.lora_down.weight", kDown},
                                                 {"y.lora_up.weight", kUp},
                                                 {"z.lambda_layer", kUp},
                                                 {"w.oft_R.weight", kUp},
                                                 {"v.weight", kUp},
                                                 {"u.something", kUp}});
  ASSERT_EQ(file.patches().size(), 1u);
  std::map<std::string, std::string> reasons;
  for (const UnusedKey& key : file.unused()) reasons[key.key] = key.reason;
  EXPECT_EQ(reasons["y.lora_up.weight"], "no algorithm is complete with what there is for its target (lora_up)");
  EXPECT_NE(reasons["z.lambda_layer"].find("T-LoRA"), std::string::npos);
  EXPECT_NE(reasons["w.oft_R.weight"].find("PEFT's OFT"), std::string::npos);
  EXPECT_EQ(reasons["v.weight"], "a plain weight, which is no adapter");
  EXPECT_EQ(reasons["u.something"], "no adapter that is known here has a tensor of such a name");
  EXPECT_EQ(reasons.size(), 5u);

  try {
    adapter_file(folder, {{"v.weight", kUp}});
    ADD_FAILURE() << "a model was read as an adapter";
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "no-adapter");
  }
}

TEST(AdapterFileTest, RewritesControlLoras) {
  const TemporaryFolder folder;
  // The first layer grows from 3 to 5 inputs.
  const Tensor down = random_tensor({2, 5}, 6);
  const AdapterFile file = adapter_file(folder, {{"img_in.lora_A.weight", down},
                                                 {"img_in.lora_B.weight", kUp},
                                                 {"img_in.lora_B.bias", random_tensor({4}, 7)},
                                                 {"single_blocks.0.norm.key_norm.scale", random_tensor({2}, 8)}});
  std::map<std::string, const Patch*> patches;
  for (const Patch& patch : file.patches()) patches[patch.target + " " + std::string(patch.algorithm->name)] = &patch;
  ASSERT_EQ(patches.size(), 3u);
  ASSERT_TRUE(patches["diffusion_model.single_blocks.0.norm.key_norm set"]);
  ASSERT_TRUE(patches["diffusion_model.img_in diff"]);
  EXPECT_EQ(patches["diffusion_model.img_in diff"]->factor, 1);
  const Patch* lora = patches["diffusion_model.img_in lora"];
  ASSERT_TRUE(lora);
  EXPECT_EQ(misfit(*lora, kWeight.shape), "");
  Stack stack(kWeight.shape);
  stack.add(load(file, *lora, stack.shape()), 1, {"img_in", 0, 0, false});
  EXPECT_EQ(stack.shape(), (Shape{4, 5}));
  const std::vector<float> grown = grow(kWeight.values, kWeight.shape, stack.shape());
  EXPECT_EQ(grown[5], kWeight.values[3]);
  EXPECT_EQ(grown[3], 0);
  const std::vector<float> out = test::merged(stack, grown);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 5; ++c) {
      const float base = c < 3 ? kWeight.row(r)[c] : 0;
      EXPECT_NEAR(out[static_cast<size_t>(r * 5 + c)],
                  base + kUp.row(r)[0] * down.row(0)[c] + kUp.row(r)[1] * down.row(1)[c], 1e-6);
    }
  }
  // Nothing else may change a weight that grows, and it never shrinks.
  EXPECT_THROW(stack.add(load(file, *lora, {4, 3}), 1, {"img_in", 0, 2, false}), Error);
  EXPECT_THROW(load(file, *lora, {4, 7}), Error);
}

TEST(AdapterFileTest, RewritesWanFunAndUso) {
  const TemporaryFolder folder;
  const AdapterFile wan = adapter_file(folder, {{"lora_unet__blocks_0_cross_attn_k.lora_down.weight", kDown},
                                                {"lora_unet__blocks_0_cross_attn_k.lora_up.weight", kUp}});
  EXPECT_EQ(wan.patches()[0].target, "lora_unet_blocks_0_cross_attn_k");
  const AdapterFile uso = adapter_file(folder, {{"single_blocks.37.processor.qkv_lora.down.weight", kDown},
                                                {"single_blocks.37.processor.qkv_lora.up.weight", kUp},
                                                {"double_blocks.18.processor.qkv_lora2.down.weight", kDown},
                                                {"double_blocks.18.processor.qkv_lora2.up.weight", kUp},
                                                {"double_blocks.18.processor.proj_lora1.down.weight", kDown},
                                                {"double_blocks.18.processor.proj_lora1.up.weight", kUp}});
  std::vector<std::string> targets;
  for (const Patch& patch : uso.patches()) targets.push_back(patch.target);
  EXPECT_THAT(targets, testing::UnorderedElementsAre("diffusion_model.single_blocks.37.linear1_qkv",
                                                     "diffusion_model.double_blocks.18.txt_attn.qkv",
                                                     "diffusion_model.double_blocks.18.img_attn.proj"));
}

}  // namespace
}  // namespace mezzotint::adapter
