#include "mezzotint/convert/preset.h"

// Chroma.
//
// Kept: convert_to_quant's `distillation_large` filter: distilled_guidance_layer, final_layer, img_in, txt_in. Its
// `distillation_small` keeps the first of them only; the others are first and last layers, kept in every architecture.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"distillation_large", "distillation_small", "chroma1", "chroma1_hd"};

constexpr Signature kSignatures[] = {
    {.names = "distilled_guidance_layer.in_proj.weight double_blocks.0.img_attn.qkv.weight !nerf_blocks.*",
     .whose = "Chroma's"},
    {.names = "distilled_guidance_layer.* double_blocks.0.img_attn.qkv.weight !nerf_blocks.*",
     .whose = "Chroma's",
     .confidence = 90},
    {.names = "distilled_guidance_layer.in_proj.weight single_transformer_blocks.0.proj_mlp.weight",
     .whose = "Chroma's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(distilled_guidance_layer\..*)", "distilled guidance"},
    {R"(img_in|x_embedder)", "first layer"},
    {R"(txt_in|context_embedder)", "text input"},
    {R"(final_layer\..*|proj_out)", "last layer"},
};

}  // namespace

extern const Preset preset_chroma = {.name = "chroma",
                                     .summary = "Chroma",
                                     .part = Part::diffusion_model,
                                     .aliases = kAliases,
                                     .signatures = kSignatures,
                                     .keep = kKeep};

}  // namespace mezzotint::convert::presets
