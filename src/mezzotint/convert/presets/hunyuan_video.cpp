#include <fmt/format.h>

#include "mezzotint/convert/preset.h"

// HunyuanVideo 1.0 and 1.5, HunyuanImage 2.1, and models built like them (SkyReels, FramePack).
//
// Kept: convert_to_quant's `hunyuan` filter (norms, vision_in.proj.0 and .4, which are norms, img_in.proj,
// cond_type_embedding). Ours: the text, time, guidance and glyph inputs and the final layer (first and last layers in
// every architecture), the linear layers of vision_in. The modulation of the blocks is quantized, as that filter and
// musubi-tuner (HunyuanImage) do: it is a quarter of the parameters.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"hunyuan", "hunyuanvideo", "hunyuan_video_1_5", "hunyuan_image", "framepack"};

constexpr Signature kSignatures[] = {
    {.names = "txt_in.individual_token_refiner.blocks.0.norm1.weight img_in.proj.weight", .whose = "HunyuanVideo's"},
    {.names = "context_embedder.token_refiner.refiner_blocks.0.norm1.weight x_embedder.proj.weight",
     .whose = "HunyuanVideo's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(img_in\.proj|x_embedder\.proj)", "first layer"},
    {R"(txt_in\.(?:input_embedder|[tc]_embedder\..*))", "text input"},
    {R"(context_embedder(?:_2)?\.(?:proj_in|linear_\d|time_text_embed\..*))", "text input"},
    {R"((?:time|time_r|vector|guidance)_in\..*|time_text_embed\..*|time_embed\..*)", "time and guidance embedding"},
    {R"(vision_in\.proj\.\d+|byt5_in\.fc\d|image_embedder\..*)", "image and glyph input"},
    {R"(cond_type_embedding|cond_type_embed)", "embedding table"},
    {R"(final_layer\..*|norm_out\.linear|proj_out)", "last layer"},
};

constexpr PresetRule kQuantize[] = {
    {R"(double_blocks\.\d+\.(?:img|txt)_mod\.lin(?:ear)?|single_blocks\.\d+\.modulation\.lin(?:ear)?)",
     "modulation of a block"},
    {R"(transformer_blocks\.\d+\.norm1(?:_context)?\.linear|single_transformer_blocks\.\d+\.norm\.linear)",
     "modulation of a block"},
};

std::string variant(const Keys& keys) {
  const bool newer = keys.has("cond_type_embedding.weight") || keys.any("cond_type_embed");
  const bool image = !newer && keys.find("img_in.proj.weight") && keys.find("img_in.proj.weight")->size() == 4;
  return fmt::format("{}, {} + {} blocks",
                     newer   ? "video 1.5"
                     : image ? "image 2.1"
                             : "video 1.0",
                     keys.blocks("double_blocks.") + keys.blocks("transformer_blocks."),
                     keys.blocks("single_blocks.") + keys.blocks("single_transformer_blocks."));
}

}  // namespace

extern const Preset preset_hunyuan_video = {.name = "hunyuan_video",
                                            .summary = "HunyuanVideo 1.0 and 1.5, HunyuanImage 2.1",
                                            .part = Part::diffusion_model,
                                            .aliases = kAliases,
                                            .signatures = kSignatures,
                                            .keep = kKeep,
                                            .quantize = kQuantize,
                                            .variant = variant};

}  // namespace mezzotint::convert::presets
