#include "mezzotint/convert/detect.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "convert/shapes.h"

namespace mezzotint::convert {
namespace {

using test::model_of;
using test::published;
using test::renamed;
using test::tensor;
using testing::HasSubstr;

struct Published {
  const char* model;
  const char* preset;
  const char* prefix;
  const char* variant;
};

class DetectPublished : public testing::TestWithParam<Published> {};

TEST_P(DetectPublished, NamesTheArchitecture) {
  const Published& expected = GetParam();
  auto tensors = published(expected.model);
  const Detection found = detect(tensors, expected.prefix);
  EXPECT_EQ(found.preset->name, expected.preset) << found.reason;
  EXPECT_TRUE(found.known());
  EXPECT_EQ(found.variant, expected.variant);
  EXPECT_EQ(found.prefix, expected.prefix);
  EXPECT_THAT(found.reason, testing::Not(testing::IsEmpty()));

  // The order of tensors says nothing.
  std::ranges::reverse(tensors);
  EXPECT_EQ(detect(tensors, expected.prefix).preset->name, expected.preset);
  // Wrapped once more, and found from the outside.
  const auto wrapped = renamed(tensors, expected.prefix, "model.diffusion_model.");
  EXPECT_EQ(detect(wrapped).preset->name, expected.preset);
  EXPECT_EQ(detect(wrapped).prefix, "model.diffusion_model.");
  // Nothing else claims it with the same certainty.
  for (const auto& other : found.runners_up) EXPECT_LT(other.confidence, found.confidence) << other.reason;
}

INSTANTIATE_TEST_SUITE_P(
    Models, DetectPublished,
    testing::Values(Published{"wan2.2-ti2v-5b", "wan", "", "ti2v (2.2), 30 blocks, width 3072"},
                    Published{"wan2.1-t2v-14b", "wan", "", "t2v, 40 blocks, width 5120"},
                    Published{"wan2.1-i2v-14b", "wan", "", "i2v, 40 blocks, width 5120"},
                    Published{"wan2.2-i2v-14b", "wan", "", "i2v (2.2), 40 blocks, width 5120"},
                    Published{"flux1-dev", "flux", "", ""}, Published{"flux2-dev", "flux2", "", ""},
                    Published{"qwen-image", "qwen_image", "", ""}, Published{"z-image", "zimage", "", ""},
                    Published{"chroma", "chroma", "", ""},
                    Published{"hunyuan-video", "hunyuan_video", "", "video 1.0, 20 + 40 blocks"},
                    Published{"ltx-video-2b", "ltxv", "model.diffusion_model.", "28 blocks, width 2048"},
                    Published{"ltx-video-13b", "ltxv", "model.diffusion_model.", "48 blocks, width 4096"},
                    Published{"ltx-2", "ltxv2", "model.diffusion_model.", ""}, Published{"t5-xxl", "t5", "", ""},
                    Published{"umt5-xxl", "t5", "", ""}, Published{"chroma-radiance", "chroma_radiance", "", ""},
                    Published{"krea2", "krea2", "", ""}, Published{"ideogram4", "ideogram4", "", ""},
                    Published{"lens", "lens", "", ""},
                    Published{"sdxl-base", "sd_unet", "model.diffusion_model.", "SDXL"}),
    [](const auto& instance) {
      std::string name = instance.param.model;
      std::ranges::replace_if(
          name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
      return name;
    });

TEST(Detect, SaysWhy) {
  const auto tensors = published("wan2.2-ti2v-5b");
  EXPECT_EQ(detect(tensors).reason, "head.modulation and blocks.0.self_attn.q.weight are Wan's");
}

TEST(Detect, KnowsDiffusersNames) {
  const auto expect = [](std::initializer_list<const char*> layers, const char* preset) {
    EXPECT_EQ(detect(model_of(layers)).preset->name, preset);
  };
  expect({"blocks.0.attn1.to_q", "condition_embedder.time_embedder.linear_1"}, "wan");
  expect({"single_transformer_blocks.0.proj_mlp", "single_transformer_blocks.0.norm.linear", "context_embedder",
          "x_embedder", "transformer_blocks.0.norm1.linear"},
         "flux");
  expect({"single_transformer_blocks.0.proj_mlp", "distilled_guidance_layer.in_proj", "context_embedder", "x_embedder"},
         "chroma");
  expect({"double_stream_modulation_img.linear", "single_transformer_blocks.0.attn.to_out"}, "flux2");
  expect({"context_embedder.token_refiner.refiner_blocks.0.norm1", "x_embedder.proj",
          "single_transformer_blocks.0.proj_mlp", "single_transformer_blocks.0.norm.linear"},
         "hunyuan_video");
  expect({"transformer_blocks.0.norm1_context.linear", "pos_embed.proj", "context_embedder"}, "sd3");
  expect({"down_blocks.0.resnets.0.conv1", "time_embedding.linear_1", "conv_in"}, "sd_unet");
}

TEST(Detect, TellsRelativesApart) {
  const auto expect = [](std::initializer_list<const char*> layers, const char* preset) {
    const Detection found = detect(model_of(layers));
    EXPECT_EQ(found.preset->name, preset) << found.reason;
  };
  expect({"distilled_guidance_layer.in_proj", "double_blocks.0.img_attn.qkv", "nerf_blocks.0.param_generator"},
         "chroma_radiance");
  // HunyuanVideo in ComfyUI's names has FLUX's blocks.
  expect({"txt_in.individual_token_refiner.blocks.0.norm1", "img_in.proj", "double_blocks.0.img_attn.qkv",
          "double_blocks.0.img_mod.lin"},
         "hunyuan_video");
  expect({"net.llm_adapter.blocks.0.cross_attn.q_proj", "net.blocks.0.mlp.layer1", "net.x_embedder.proj.1",
          "net.blocks.0.self_attn.output_proj"},
         "anima");
  expect({"net.blocks.0.mlp.layer1", "net.x_embedder.proj.1", "net.blocks.0.self_attn.output_proj"}, "cosmos_predict2");
  expect({"noise_refiner.0.attention.k_norm", "cap_embedder.1"}, "lumina2");
  expect({"transformer_blocks.0.img_mlp.w1", "transformer_blocks.0.attn.img_qkv", "txt_norm", "img_in"}, "lens");
  expect({"txtfusion.projector", "blocks.0.attn.wq", "first"}, "krea2");
  expect({"embed_image_indicator", "llm_cond_proj"}, "ideogram4");
  expect({"double_stream_layers.0.img_instruct_attn.processor.img_to_q", "x_embedder"}, "boogu");
  expect({"joint_blocks.0.x_block.attn.qkv", "joint_blocks.0.context_block.attn.qkv"}, "sd3");
  expect({"decoder.conv_in", "encoder.conv_in"}, "vae");
  expect({"a.lora_A", "a.lora_B"}, "lora");
}

TEST(Detect, KnowsTextEncoders) {
  const auto expect = [](std::initializer_list<const char*> layers, const char* preset) {
    const Detection found = detect(model_of(layers));
    EXPECT_EQ(found.preset->name, preset) << found.reason;
    EXPECT_EQ(found.preset->part, Part::text_encoder);
  };
  expect({"text_model.encoder.layers.0.mlp.fc1", "text_model.embeddings.token_embedding"}, "clip");
  expect({"transformer.resblocks.0.mlp.c_fc", "token_embedding"}, "clip");
  expect({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.embed_tokens"}, "llama");
  expect({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.embed_tokens",
          "visual.blocks.0.attn.qkv"},
         "qwen_vl");
  expect({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.embed_tokens",
          "model.layers.0.post_feedforward_layernorm"},
         "gemma");
  expect({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.embed_tokens",
          "model.layers.0.post_feedforward_layernorm", "model.layers.0.per_layer_input_gate"},
         "gemma4");
  expect({"encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.1.DenseReluDense.wi_0"}, "t5");

  auto mistral = model_of({"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.gate_proj", "model.embed_tokens"});
  mistral.push_back(tensor("model.layers.0.post_attention_layernorm.weight", {5120}));
  EXPECT_EQ(detect(mistral).preset->name, "mistral");
  mistral.back().shape = {4096};
  EXPECT_EQ(detect(mistral).preset->name, "llama");

  auto qwen35 = model_of({"model.layers.0.self_attn.q_proj", "model.layers.0.input_layernorm"});
  qwen35.push_back(tensor("model.layers.0.linear_attn.A_log", {16}));
  EXPECT_EQ(detect(qwen35).preset->name, "qwen35");
}

TEST(Detect, UnknownModelsAreGeneric) {
  for (const auto& tensors : {model_of({"stages.0.attention.query", "stages.0.mlp.0"}), model_of({})}) {
    const Detection found = detect(tensors);
    EXPECT_EQ(found.preset->name, "generic");
    EXPECT_FALSE(found.known());
    EXPECT_THAT(found.reason, HasSubstr("no known architecture"));
    EXPECT_EQ(found.prefix, "");
  }
  // One of Wan's two names is not Wan.
  EXPECT_FALSE(detect(model_of({"blocks.0.self_attn.q"})).known());
}

TEST(Detect, NamedPresetsStillFindTheNames) {
  const auto tensors = renamed(published("z-image"), "", "model.diffusion_model.");
  const Detection found = detect_as(select_preset("zimage_refiner"), tensors);
  EXPECT_EQ(found.preset->name, "zimage_refiner");
  EXPECT_EQ(found.prefix, "model.diffusion_model.");
  EXPECT_EQ(found.reason, "asked for");
}

}  // namespace
}  // namespace mezzotint::convert
