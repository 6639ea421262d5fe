#include "mezzotint/convert/preset.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "convert/shapes.h"
#include "mezzotint/base/error.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/rules.h"

namespace mezzotint::convert {
namespace {

using test::published;
using testing::HasSubstr;

TEST(Presets, NamesAreUniqueAndEveryPatternCompiles) {
  std::set<std::string_view> names;
  for (const Preset* preset : all_presets()) {
    EXPECT_TRUE(names.insert(preset->name).second) << preset->name;
    for (const auto alias : preset->aliases) EXPECT_TRUE(names.insert(alias).second) << alias;
    EXPECT_EQ(&select_preset(preset->name), preset);
    EXPECT_FALSE(preset->summary.empty());
    EXPECT_NO_THROW(PresetRules{*preset}) << preset->name;
  }
  EXPECT_GT(names.size(), 50u);
}

TEST(Presets, NamesPeopleKnow) {
  // Every flag of convert_to_quant finds a preset.
  const std::pair<const char*, const char*> known[] = {{"t5xxl", "t5"},
                                                       {"mistral", "mistral"},
                                                       {"visual", "qwen_vl"},
                                                       {"generic_text", "llama"},
                                                       {"gemma4", "gemma4"},
                                                       {"qwen35", "qwen35"},
                                                       {"flux2", "flux2"},
                                                       {"distillation_large", "chroma"},
                                                       {"distillation_small", "chroma"},
                                                       {"nerf_large", "nerf_large"},
                                                       {"nerf_small", "chroma_radiance"},
                                                       {"radiance", "chroma_radiance"},
                                                       {"wan", "wan"},
                                                       {"hunyuan", "hunyuan_video"},
                                                       {"qwen", "qwen_image"},
                                                       {"zimage", "zimage"},
                                                       {"zimage_refiner", "zimage_refiner"},
                                                       {"lora", "lora"},
                                                       {"anima", "anima"},
                                                       {"lens", "lens"},
                                                       {"krea2", "krea2"},
                                                       {"ideogram4", "ideogram4"},
                                                       {"boogu", "boogu"},
                                                       {"ltxv2", "ltxv2"},
                                                       {"Z-Image", "zimage"},
                                                       {"SDXL", "sd_unet"}};
  for (const auto& [name, preset] : known) EXPECT_EQ(select_preset(name).name, preset) << name;
}

TEST(Presets, UnknownNamesGetASuggestion) {
  try {
    select_preset("hunyan");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "unknown-preset");
    EXPECT_THAT(error.what(), HasSubstr("Did you mean 'hunyuan'?"));
    EXPECT_THAT(error.what(), HasSubstr("qwen_image"));
  }
  try {
    select_preset("something else");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("Did you mean")));
  }
}

struct Split {
  std::set<std::string> quantized, kept;  ///< layers of rank 2 or more; `kept` as "layer: reason"
};

Split split(const std::string& model, std::string_view component, const char* preset = nullptr) {
  const auto tensors = published(model);
  const Detection found = preset ? detect_as(select_preset(preset), tensors, component) : detect(tensors, component);
  const LayerRules rules({.preset = found.preset, .prefix = found.prefix});
  Split result;
  for (const auto& t : tensors) {
    if (!t.name.starts_with(component) || t.shape.size() < 2) continue;
    const LayerDecision decision = rules.decide(t.name, t.shape, facts(t.dtype).is_float);
    const std::string layer = t.name.substr(component.size());
    if (decision.quantize) {
      result.quantized.insert(layer.substr(0, layer.size() - 7));
    } else {
      result.kept.insert(layer + ": " + decision.reason);
    }
  }
  return result;
}

struct Expected {
  const char* model;
  const char* component;
  size_t quantized;  ///< counted by hand from the blocks
  std::vector<const char*> yes;
  std::vector<const char*> no;
};

class PublishedModels : public testing::TestWithParam<Expected> {};

TEST_P(PublishedModels, QuantizeTheBlocksAndKeepTheRest) {
  const Expected& expected = GetParam();
  const Split found = split(expected.model, expected.component);
  EXPECT_EQ(found.quantized.size(), expected.quantized) << testing::PrintToString(found.kept);
  for (const char* layer : expected.yes) EXPECT_THAT(found.quantized, testing::Contains(layer));
  for (const char* line : expected.no) EXPECT_THAT(found.kept, testing::Contains(line));
}

INSTANTIATE_TEST_SUITE_P(
    Models, PublishedModels,
    testing::Values(
        // 10 matrices per block; i2v has two more (k_img, v_img)
        Expected{"wan2.2-ti2v-5b",
                 "",
                 30 * 10,
                 {"blocks.0.self_attn.q", "blocks.29.ffn.2", "blocks.3.cross_attn.o"},
                 {"patch_embedding.weight: convolution", "text_embedding.0.weight: text embedding (preset wan)",
                  "time_projection.1.weight: modulation (preset wan)", "head.head.weight: last layer (preset wan)",
                  "head.modulation: not a layer's weight"}},
        Expected{"wan2.1-i2v-14b",
                 "",
                 40 * 12,
                 {"blocks.7.cross_attn.k_img"},
                 {"img_emb.proj.1.weight: image embedding (preset wan)"}},
        // double: 4 attention + 4 mlp + 2 modulation; single: 3
        Expected{"flux1-dev",
                 "",
                 19 * 10 + 38 * 3,
                 {"double_blocks.0.img_mod.lin", "single_blocks.37.modulation.lin"},
                 {"img_in.weight: first layer (preset flux)", "txt_in.weight: text input (preset flux)",
                  "guidance_in.in_layer.weight: time and guidance embedding (preset flux)",
                  "final_layer.adaLN_modulation.1.weight: last layer (preset flux)"}},
        Expected{"flux2-dev",
                 "",
                 8 * 8 + 48 * 2,
                 {"single_blocks.0.linear1"},
                 {"double_stream_modulation_img.lin.weight: modulation (preset flux2)",
                  "single_stream_modulation.lin.weight: modulation (preset flux2)"}},
        Expected{"chroma",
                 "",
                 19 * 8 + 38 * 2,
                 {"double_blocks.18.txt_mlp.2"},
                 {"distilled_guidance_layer.layers.4.out_layer.weight: distilled guidance (preset chroma)",
                  "img_in.weight: first layer (preset chroma)"}},
        // per block 8 attention, 4 mlp, 2 modulation; less img_mod of block 0
        Expected{"qwen-image",
                 "",
                 60 * 14 - 1,
                 {"transformer_blocks.1.img_mod.1", "transformer_blocks.0.txt_mod.1"},
                 {"transformer_blocks.0.img_mod.1.weight: modulation of the first block (preset qwen_image)",
                  "norm_out.linear.weight: last layer (preset qwen_image)",
                  "proj_out.weight: last layer (preset qwen_image)"}},
        Expected{"z-image",
                 "",
                 (30 + 2 + 2) * 5,
                 {"layers.0.attention.qkv", "context_refiner.1.feed_forward.w3"},
                 {"layers.3.adaLN_modulation.0.weight: modulation (preset zimage)",
                  "cap_embedder.1.weight: text input (preset zimage)", "x_pad_token: not a layer's weight"}},
        Expected{"hunyuan-video",
                 "",
                 20 * 10 + 40 * 3 + 2 * 4,
                 {"double_blocks.0.img_attn_qkv", "txt_in.individual_token_refiner.blocks.1.mlp.fc2"},
                 {"img_in.proj.weight: convolution",
                  "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight: modulation (generic rule)",
                  "txt_in.c_embedder.linear_2.weight: text input (preset hunyuan_video)"}},
        Expected{"ltx-video-2b",
                 "model.diffusion_model.",
                 28 * 10,
                 {"transformer_blocks.0.ff.net.0.proj"},
                 {"adaln_single.linear.weight: modulation (preset ltxv)",
                  "caption_projection.linear_1.weight: text input (preset ltxv)",
                  "transformer_blocks.0.scale_shift_table: not a layer's weight"}},
        // 28 matrices in each of the 44 middle blocks
        Expected{"ltx-2",
                 "model.diffusion_model.",
                 44 * 28,
                 {"transformer_blocks.2.attn1.to_q", "transformer_blocks.45.audio_ff.net.2"},
                 {"transformer_blocks.46.attn1.to_q.weight: first or last blocks (preset ltxv2)",
                  "video_embeddings_connector.transformer_1d_blocks.0.ff.net.2.weight: embeddings connector (preset "
                  "ltxv2)",
                  "av_ca_a2v_gate_adaln_single.linear.weight: modulation (preset ltxv2)"}},
        Expected{"t5-xxl",
                 "",
                 24 * 7,
                 {"encoder.block.0.layer.0.SelfAttention.q"},
                 {"shared.weight: embedding table (preset t5)",
                  "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight: position bias (preset t5)"}},
        // 10 matrices per transformer block (70 of them), proj_in and proj_out around each of the 11 stacks
        Expected{"sdxl-base",
                 "model.diffusion_model.",
                 70 * 10 + 11 * 2,
                 {"input_blocks.4.1.transformer_blocks.0.attn1.to_q", "input_blocks.4.1.proj_in",
                  "output_blocks.0.1.proj_out"},
                 {"time_embed.0.weight: time embedding (preset sd_unet)",
                  "input_blocks.1.0.emb_layers.1.weight: time embedding (preset sd_unet)",
                  "input_blocks.1.0.in_layers.2.weight: convolution"}}),
    [](const auto& instance) {
      std::string name = instance.param.model;
      std::ranges::replace_if(
          name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
      return name;
    });

TEST(Presets, RefinerPresetKeepsTheRefiners) {
  const Split found = split("z-image", "", "zimage_refiner");
  EXPECT_EQ(found.quantized.size(), 30u * 5);
  EXPECT_THAT(found.kept, testing::Contains("noise_refiner.0.attention.qkv.weight: refiner (preset zimage_refiner)"));
}

std::string kept(std::string_view preset, std::string_view layer) {
  const auto reason = PresetRules(select_preset(preset)).keep_reason(layer);
  return reason ? reason->reason : "";
}

TEST(Presets, IntentOfEachFilter) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"anima", "blocks.0.mlp.layer1", "first block"},
      {"anima", "blocks.1.mlp.layer1", ""},
      {"anima", "blocks.10.mlp.layer1", ""},
      {"anima", "blocks.1.adaln_modulation_mlp.1", "modulation"},
      {"anima", "llm_adapter.blocks.3.mlp.0", "text adapter"},
      {"lens", "transformer_blocks.5.img_mod.1", "modulation"},
      {"lens", "transformer_blocks.5.img_mlp.w1", ""},
      {"krea2", "first", "first layer"},
      {"krea2", "txtmlp.1", "text input"},
      {"krea2", "tproj.1", "modulation"},
      {"krea2", "txtfusion.refiner_blocks.0.mlp.up", "text fusion"},
      {"krea2", "blocks.0.attn.gate", ""},
      {"krea2", "blocks.3.classifier_free", ""},  // contains "las", as the filter's substring does
      {"ideogram4", "adaln_proj", "modulation"},
      {"ideogram4", "llm_cond_proj", "text input"},
      {"ideogram4", "layers.0.attention.o", ""},
      {"boogu", "norm_out.linear_2", "last layer"},
      {"boogu", "ref_image_patch_embedder", "first layer"},
      {"boogu", "ref_image_refiner.0.attn.to_q", ""},
      {"boogu", "double_stream_layers.0.img_norm2.linear", "modulation"},
      {"chroma_radiance", "nerf_blocks.0.param_generator", "pixel decoder"},
      {"chroma_radiance", "double_blocks.0.img_attn.proj", ""},
      {"nerf_large", "double_blocks.0.img_attn.proj", "attention output"},
      {"nerf_large", "double_blocks.0.img_attn.qkv", ""},
      {"wan", "audio_injector.injector.3.q", "audio injection"},
      {"wan", "face_adapter.fuser_blocks.0.linear1_kv", "face adapter"},
      {"wan", "face_encoder.out_proj", "face and motion encoder"},
      {"wan", "trainable_cond_mask", "conditioning input"},
      {"wan", "casual_audio_encoder.encoder.final_linear", "audio encoder"},
      {"wan", "vace_blocks.0.before_proj", ""},
      {"wan", "blocks.0.audio_cross_attn_wrapper.audio_cross_attn.q", ""},
      {"wan", "condition_embedder.time_proj", "modulation"},
      {"wan", "blocks.0.attn1.to_q", ""},
      {"hunyuan", "vision_in.proj.1", "image and glyph input"},
      {"hunyuan", "double_blocks.0.img_attn.proj", ""},
      {"qwen", "transformer_blocks.10.img_mod.1", ""},
      {"ltxv2", "transformer_blocks.47.ff.net.2", "first or last blocks"},
      {"ltxv2", "transformer_blocks.17.ff.net.2", ""},
      {"ltxv2", "transformer_blocks.17.attn1.to_gate_logits", "attention gate"},
      {"visual", "visual.blocks.3.mlp.up_proj", "feed-forward of the vision tower"},
      {"visual", "model.layers.3.mlp.up_proj", ""},
      {"qwen35", "model.layers.0.mlp.up_proj", "first or last layer"},
      {"qwen35", "model.layers.63.mlp.up_proj", "first or last layer"},
      {"qwen35", "model.layers.6.mlp.up_proj", ""},
      {"qwen35", "model.layers.6.linear_attn.in_proj_a", "gates of the delta net"},
      {"qwen35", "model.layers.6.linear_attn.in_proj_qkv", ""},
      {"gemma4", "vision_model.encoder.layers.0.mlp.up_proj.linear", "vision tower"},
      {"gemma4", "model.layers.4.per_layer_projection", "per-layer input"},
      {"gemma4", "model.layers.4.self_attn.q_proj", ""},
      {"mistral", "multi_modal_projector.linear_1", "image input"},
      {"t5", "decoder.block.0.layer.0.SelfAttention.q", "decoder, not used by diffusion models"},
      {"flux", "transformer_blocks.0.norm1.linear", ""},
      {"flux", "norm_out.linear", "last layer"},
  };
  for (const auto& [preset, layer, reason] : cases) EXPECT_EQ(kept(preset, layer), reason) << preset << " " << layer;
}

TEST(GenericRules, MatchSegmentsNotSubstrings) {
  const std::pair<const char*, const char*> cases[] = {
      {"shared", "embedding table"},
      {"blocks.0.shared_mlp.fc1", ""},
      {"blocks.0.shared.fc1", ""},
      {"model.embed_tokens", "embedding table"},
      {"blocks.0.norm_q", "norm"},
      {"blocks.0.input_layernorm", "norm"},
      {"blocks.0.attention_norm1", "norm"},
      {"blocks.0.normalizer_proj", ""},
      {"blocks.0.enormous", ""},
      {"norm_out.linear", "modulation"},
      {"blocks.0.norm1.linear", "modulation"},
      {"blocks.0.mod.lin", "modulation"},
      {"blocks.0.adaLN_modulation.1", "modulation"},
      {"blocks.0.model_proj", ""},
      {"blocks.0.mode", ""},
      {"proj_out", "last layer"},
      {"blocks.0.proj_out", ""},
      {"head.head", "last layer"},
      {"blocks.0.head.q", ""},
      {"multi_head.q", ""},
      {"headless", ""},
      {"img_in", "first layer"},
      {"img_in_attn.q", ""},
      {"proj_in", "first layer"},
      {"blocks.0.proj_in", ""},
      {"lm_head", "last layer"},
      {"time_embed.0", "time embedding"},
      {"blocks.0.t_embedder.mlp.0", "time embedding"},
      {"blocks.0.times.q", ""},
      {"txt_in", "text input"},
      {"text_blocks.0.attn.q", ""},
      {"context_refiner.0.attn.q", ""},
      {"vision.blocks.0.attn.q", ""},
      {"audio_blocks.0.attn.q", ""},
      {"blocks.0.scale_proj", ""},
      {"blocks.0.attn.to_out.0", ""},
      {"blocks.0.mlp.fc1", ""},
  };
  for (const auto& [layer, reason] : cases) EXPECT_EQ(kept("generic", layer), reason) << layer;
}

TEST(Structure, WhatIsNoMatrixIsKept) {
  const auto reason = [](const char* name, Shape shape, bool is_float = true) {
    return structural_reason(name, shape, is_float).value_or("");
  };
  EXPECT_EQ(reason("a.weight", {64, 64}), "");
  EXPECT_EQ(reason("a.weight", {64, 64}, false), "not floating point");
  EXPECT_EQ(reason("a.weight", {64}), "one-dimensional");
  EXPECT_EQ(reason("a.weight", {}), "a single number");
  EXPECT_EQ(reason("a.weight", {64, 64, 3}), "convolution");
  EXPECT_EQ(reason("a.weight", {64, 64, 3, 3}), "convolution");
  EXPECT_EQ(reason("a.weight", {64, 64, 1, 2, 2}), "convolution");
  EXPECT_EQ(reason("a.experts.up.weight", {8, 64, 64}), "");
  EXPECT_EQ(reason("a.nonexperts.up.weight", {8, 64, 64}), "convolution");
  EXPECT_EQ(reason("a.modulation", {6, 64}), "not a layer's weight");
  EXPECT_EQ(reason("a.weight", {16, 64}), "");
  EXPECT_EQ(reason("a.weight", {0, 64}), "empty");
}

TEST(Structure, SmallMatricesAreNotWorthAScale) {
  const auto reason = [](Shape shape) { return too_small_reason(shape).value_or(""); };
  EXPECT_EQ(reason({64, 15}), "too small (a side of 15)");
  EXPECT_EQ(reason({16, 16}), "");
  EXPECT_EQ(reason({2, 64, 8}), "too small (a side of 8)");
  EXPECT_EQ(reason({2, 64, 16}), "");
}

TEST(Rules, IncludeReachesSmallMatrices) {
  RuleOptions options{.preset = &select_preset("generic"), .include = {"^tiny$"}};
  const LayerRules rules(options);
  EXPECT_TRUE(rules.decide("tiny.weight", Shape{1, 1}, true).quantize);
  EXPECT_FALSE(rules.decide("other.weight", Shape{1, 1}, true).quantize);
}

TEST(Structure, Kinds) {
  using formats::LayerKind;
  EXPECT_EQ(classify_layer("a.q.weight", Shape{4, 4}), LayerKind::linear);
  EXPECT_EQ(classify_layer("model.embed_tokens.weight", Shape{4, 4}), LayerKind::embedding);
  EXPECT_EQ(classify_layer("text_model.embeddings.position_embedding.weight", Shape{4, 4}), LayerKind::embedding);
  EXPECT_EQ(classify_layer("a.experts.gate_up_proj.weight", Shape{2, 4, 4}), LayerKind::expert_bank);
  EXPECT_EQ(classify_layer("a.conv.weight", Shape{2, 4, 4}), LayerKind::convolution);
  EXPECT_EQ(classify_layer("a.bias", Shape{4}), LayerKind::other);
}

TEST(Rules, Order) {
  const Shape shape = {64, 64};
  const auto by = [&](RuleOptions options, const char* tensor) {
    return LayerRules(std::move(options)).decide(tensor, shape, true).by;
  };
  const Preset* wan = &select_preset("wan");
  EXPECT_EQ(by({.preset = wan}, "blocks.0.ffn.0.weight"), DecidedBy::otherwise);
  EXPECT_EQ(by({.preset = wan}, "head.head.weight"), DecidedBy::preset);
  EXPECT_EQ(by({.preset = wan}, "blocks.0.t_embedder.weight"), DecidedBy::generic);
  EXPECT_EQ(by({}, "head.head.weight"), DecidedBy::otherwise);  // --preset none
  EXPECT_EQ(by({.preset = wan, .include = {"head"}}, "head.head.weight"), DecidedBy::include);
  EXPECT_EQ(by({.preset = wan, .include = {"."}, .exclude = {R"(head\.weight$)"}}, "head.head.weight"),
            DecidedBy::exclude);
  EXPECT_EQ(by({.preset = wan, .exclude = {"head$"}}, "head.head.weight"), DecidedBy::exclude);
  EXPECT_EQ(by({.preset = wan, .include = {"."}}, "a.bias"), DecidedBy::structure);
  // The prefix is taken off for presets only.
  EXPECT_EQ(by({.preset = wan, .prefix = "model."}, "model.head.head.weight"), DecidedBy::preset);
  EXPECT_EQ(by({.preset = wan, .prefix = "model.", .exclude = {"^model"}}, "model.x.weight"), DecidedBy::exclude);
}

}  // namespace
}  // namespace mezzotint::convert
