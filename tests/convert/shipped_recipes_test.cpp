#include "mezzotint/convert/shipped_recipes.h"

#include <gmock/gmock.h>

#include <set>

#include "convert/conversion.h"
#include "convert/shapes.h"
#include "mezzotint/convert/recipe.h"

// The expectation is convert_to_quant's rule, not what our rules make of it: a weight is quantized if its name ends in
// ".weight", it is a matrix, not empty, and no entry of the filter occurs anywhere in the name. --nvfp4 has the AVOID
// list beside every filter and removes nothing.
namespace mezzotint::convert {
namespace {

using Names = std::set<std::string>;

const std::vector<std::string> kAvoid = {"norm",
                                         "bias",
                                         "embed_tokens",
                                         "lm_head",
                                         "shared",
                                         "k_norm",
                                         "patch_conv",
                                         "patch_embedding",
                                         "ref_conv",
                                         "control_adapter",
                                         "q_norm",
                                         "ln_pre",
                                         "img_emb.proj",
                                         "head.modulation",
                                         "casual_audio_encoder",
                                         "norm_k",
                                         "cond_encoder",
                                         "input_layernorm",
                                         "frame_packer",
                                         "audio_model.patch_embedding",
                                         "norm_q",
                                         "tekken_model",
                                         "attention_norm",
                                         "face_encoder.conv",
                                         "motion_encoder.enc.net_app",
                                         "motion_encoder.dec",
                                         "motion_encoder.enc.fc",
                                         "multi_modal_projector",
                                         "pose_patch_embedding",
                                         "post_attention_layernorm",
                                         "mm_input_projection_weight"};

struct Filter {
  const char* flag;
  std::vector<const char*> models;  ///< of tools/shapes
  std::vector<size_t> counts;       ///< layers of each with the filter alone, counted by hand
  bool avoid;                       ///< the filter holds the AVOID list
  std::vector<std::string> keep;
  std::vector<std::string> remove;
};

const std::vector<Filter>& filters() {
  static const std::vector<Filter> list = {
      {"t5xxl", {"t5-xxl", "umt5-xxl"}, {24 * 7, 24 * 7}, true, {}, {"decoder", "lm_head"}},
      {"flux2",
       {"flux2-dev"},
       {8 * 8 + 48 * 2},
       false,
       {"stream_modulation", "guidance_in", "time_in", "final_layer", "img_in", "txt_in"},
       {}},
      {"distillation_large",
       {"chroma"},
       {19 * 8 + 38 * 2},
       false,
       {"distilled_guidance_layer", "final_layer", "img_in", "txt_in"},
       {}},
      {"distillation_small", {"chroma"}, {19 * 8 + 38 * 2 + 3}, false, {"distilled_guidance_layer"}, {}},
      {"wan",
       {"wan2.2-ti2v-5b", "wan2.1-t2v-14b", "wan2.1-i2v-14b"},
       {30 * 10, 40 * 10, 40 * 12},
       true,
       {"text_embedding", "time_embedding", "audio_model.text_embedding", "casual_audio_encoder", "frame_packer",
        "trainable_cond_mask", "cond_encoder", "audio_model.time_embedding", "time_projection",
        "video_model.time_projection", "head.head", "face_encoder.out_proj", "face_adapter", "audio_injector"},
       {}},
      // Its filter keeps little: time, vector and guidance inputs, the text refiner and the last layer are quantized.
      {"hunyuan",
       {"hunyuan-video"},
       {20 * 10 + 40 * 3 + 2 * 5 + 1 + 2 * 5 + 2},
       false,
       {"layernorm", "img_attn_k_norm", "img_attn_q_norm", "txt_attn_k_norm", "txt_attn_q_norm", "norm1", "norm2",
        "vision_in.proj.0", "vision_in.proj.4", "img_in.proj", "cond_type_embedding"},
       {}},
      {"qwen",
       {"qwen-image"},
       {60 * 14 - 1},
       false,
       {"norm_added_k", "norm_added_q", "norm_k", "norm_q", "txt_norm", "time_text_embed", "img_in", "norm_out",
        "proj_out", "transformer_blocks.0.img_mod.1", "txt_in"},
       {}},
      {"zimage",
       {"z-image"},
       {34 * 5},
       false,
       {"cap_embedder.0", "cap_pad_token", "attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2", "k_norm",
        "q_norm", "x_pad_token", "x_embedder", "clip_text_pooled_proj", "final_layer", "cap_embedder.1",
        "adaLN_modulation", "t_embedder", "time_text_embed"},
       {}},
      // Modulation of 30 blocks, first and last layer (2), caption and time embedding are quantized here.
      {"zimage_refiner",
       {"z-image"},
       {30 * 6 + 1 + 2 + 1 + 2},
       false,
       {"cap_embedder.0", "cap_pad_token", "attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2", "k_norm",
        "q_norm", "x_pad_token", "context_refiner", "noise_refiner"},
       {}},
      // 28 matrices in each of the 44 middle blocks; two captions are projected by two matrices each.
      {"ltxv2",
       {"ltx-2"},
       {44 * 28 + 2 * 2},
       false,
       {"scale_shift_table",
        "text_embedding_projection",
        "audio_vae",
        "audio_embeddings_connector",
        "adaln_single",
        "audio_adaln_single",
        "audio_patchify_proj",
        "audio_proj_out",
        "audio_prompt_adaln_single",
        "av_ca_a2v_gate_adaln_single",
        "av_ca_audio_scale_shift_adaln_single",
        "av_ca_v2a_gate_adaln_single",
        "av_ca_video_scale_shift_adaln_single",
        "patchify_proj",
        "proj_out",
        "prompt_adaln_single",
        "transformer_blocks.0.",
        "transformer_blocks.1.",
        "transformer_blocks.46.",
        "transformer_blocks.47.",
        "video_embeddings_connector",
        "vae.decoder",
        "vae.encoder",
        "vocoder",
        "to_gate_logits"},
       {}},
      {"krea2", {"krea2"}, {28 * 8}, false, {"firs", "las", "tml", "txtfusion", "last.modulatio", "tpro"}, {}},
      // Five matrices and the modulation of each block.
      {"ideogram4",
       {"ideogram4"},
       {34 * 6},
       false,
       {"embed_image_indicator", "t_embedding", "llm_cond_proj", "adaln_proj", "final_layer", "input_proj"},
       {}},
      {"lens",
       {"lens"},
       {48 * 10},
       false,
       {"time_text_embed", "img_in", "norm_out", "proj_out", "img_mod.1", "txt_mod.1", "txt_in"},
       {}},
      {"nerf_large",
       {"chroma-radiance"},
       {19 * 6 + 38 * 2},
       false,
       {"distilled_guidance_layer", "nerf_blocks", "nerf_image_embedder", "txt_in", "_attn.proj"},
       {}},
      {"nerf_small",
       {"chroma-radiance"},
       {19 * 8 + 38 * 2 + 1},
       false,
       {"distilled_guidance_layer", "nerf_blocks", "nerf_image_embedder"},
       {}},
      // Keeps convolutions only: what makes pixels (4 + 1), the text input and the guidance (2 + 5 * 2) are quantized.
      {"radiance",
       {"chroma-radiance"},
       {19 * 8 + 38 * 2 + 5 + 1 + 12},
       false,
       {"img_in_patch", "nerf_final_layer_conv", "__x0__"},
       {}},
  };
  return list;
}

bool contains_any(const std::string& name, const std::vector<std::string>& parts) {
  return std::ranges::any_of(parts, [&](const auto& part) { return name.find(part) != std::string::npos; });
}

Names expected(const Filter& filter, bool four_bit, const std::vector<io::TensorInfo>& tensors) {
  Names names;
  for (const auto& t : tensors) {
    const bool matrix = t.name.ends_with(".weight") && t.shape.size() == 2 && t.shape[0] > 0 && t.shape[1] > 0;
    const bool kept = contains_any(t.name, filter.keep) || ((filter.avoid || four_bit) && contains_any(t.name, kAvoid));
    const bool removed = !four_bit && contains_any(t.name, filter.remove);
    if (matrix && !kept && !removed) names.insert(t.name.substr(0, t.name.size() - 7));
  }
  return names;
}

Names quantized_names(const Plan& plan) {
  Names names;
  for (const PlanRow& row : plan.rows)
    if (row.layout && row.layout->format->quantized) names.insert(row.name);
  return names;
}

class ShippedRecipes : public Conversion {
 protected:
  // The header of a published model before a hole instead of data.
  void write_model(const std::vector<io::TensorInfo>& tensors) const {
    nlohmann::ordered_json header;
    uint64_t offset = 0;
    for (const auto& t : tensors) {
      header[t.name] = {{"dtype", name(t.dtype)}, {"shape", t.shape}, {"data_offsets", {offset, offset + t.bytes}}};
      offset += t.bytes;
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream file(in(), std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(&length), 8);
    file << text;
    file.close();
    std::filesystem::resize_file(in(), 8 + length + offset);
  }
};

TEST_F(ShippedRecipes, QuantizeTheLayersOfTheirFilter) {
  std::set<std::string> tested;
  for (const Filter& filter : filters()) {
    for (size_t i = 0; i < filter.models.size(); ++i) {
      const auto tensors = test::published(filter.models[i]);
      EXPECT_EQ(expected(filter, false, tensors).size(), filter.counts[i]) << filter.flag << " " << filter.models[i];
      write_model(tensors);
      // names a format: what the published files are
      for (const auto& [kind, format] : {std::pair("fp8", "float8_e4m3fn"), std::pair("int8-convrot", "int8_convrot"),
                                         std::pair("nvfp4", "nvfp4")}) {
        const std::string recipe = std::string("ctq-") + filter.flag + "-" + kind;
        SCOPED_TRACE(recipe + " on " + filter.models[i]);
        tested.insert(recipe);
        const Plan made = plan(recipe_from_json(std::string(select_shipped_recipe(recipe).text)));
        EXPECT_EQ(quantized_names(made), expected(filter, std::string(kind) == "nvfp4", tensors));
        for (const PlanRow& row : made.rows) {
          const bool stored = row.layout && row.layout->format->quantized;
          EXPECT_TRUE(!stored || row.layout->format == formats::select_format(format).format) << row.name;
          EXPECT_NE(row.action, Action::drop) << row.name;
        }
      }
    }
  }
  for (const ShippedRecipe& recipe : shipped_recipes()) EXPECT_TRUE(tested.contains(recipe.name)) << recipe.name;
}

TEST_F(ShippedRecipes, AreToldApartByThisTest) {
  const auto tensors = test::published("z-image");
  write_model(tensors);
  const Plan made = plan(recipe_from_json(std::string(select_shipped_recipe("ctq-zimage-fp8").text)));
  for (const Filter& filter : filters())
    EXPECT_EQ(quantized_names(made) == expected(filter, false, tensors), std::string_view(filter.flag) == "zimage")
        << filter.flag;
}

TEST_F(ShippedRecipes, RemoveWhatTheTextEncodersFilterRemoves) {
  std::vector<io::TensorInfo> tensors = test::model_of({"encoder.block.0.q", "decoder.block.0.q", "lm_head"});
  tensors.push_back(test::tensor("decoder.final_layer_norm.weight", {64}));
  write_model(tensors);
  const auto dropped = [&](const char* recipe) {
    Names names;
    for (const PlanRow& row : plan(recipe_from_json(std::string(select_shipped_recipe(recipe).text))).rows)
      if (row.action == Action::drop) names.insert(row.name);
    return names;
  };
  EXPECT_EQ(dropped("ctq-t5xxl-fp8"),
            (Names{"decoder.block.0.q.weight", "decoder.final_layer_norm.weight", "lm_head.weight"}));
  EXPECT_EQ(dropped("ctq-t5xxl-nvfp4"), Names{});
}

TEST_F(ShippedRecipes, AreWellFormedAndSayWhatTheyAreFor) {
  EXPECT_EQ(shipped_recipes().size(), 3 * filters().size());
  std::string before;
  for (const ShippedRecipe& recipe : shipped_recipes()) {
    EXPECT_LT(before, recipe.name);
    before = recipe.name;
    EXPECT_TRUE(is_recipe_name(recipe.name)) << recipe.name;
    EXPECT_THAT(recipe.description, testing::HasSubstr("convert_to_quant")) << recipe.name;
    EXPECT_EQ(find_shipped_recipe(recipe.name), &recipe);
    const ConvertOptions options = recipe_from_json(std::string(recipe.text));
    EXPECT_EQ(options.recipe.name, recipe.name);
    EXPECT_EQ(options.recipe.revision, recipe.revision);
    EXPECT_EQ(recipe_json(options).find("modified"), std::string::npos);
    std::ifstream file(std::string(MEZZOTINT_SOURCE_DIR "/src/mezzotint/convert/recipes/") + recipe.name + ".json");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), recipe.text) << "named as its file";
  }
}

TEST_F(ShippedRecipes, UnknownNamesGetASuggestion) {
  EXPECT_EQ(find_shipped_recipe("ctq-wan"), nullptr);
  try {
    select_shipped_recipe("ctq-wan-fp9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "unknown-recipe");
    EXPECT_THAT(error.what(), testing::HasSubstr("Did you mean 'ctq-wan-fp8'?"));
    EXPECT_THAT(error.what(), testing::HasSubstr("ctq-ltxv2-nvfp4"));
  }
}

}  // namespace
}  // namespace mezzotint::convert
