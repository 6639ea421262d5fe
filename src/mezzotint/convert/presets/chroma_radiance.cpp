#include "mezzotint/convert/preset.h"

// Chroma Radiance (pixel space).
//
// Kept: the union of convert_to_quant's `nerf_small` (distilled_guidance_layer, nerf_blocks, nerf_image_embedder) and
// `radiance` (img_in_patch, nerf_final_layer_conv, __x0__), plus txt_in, a first layer. `nerf_large` adds the attention
// output projections and is a preset of its own.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"radiance", "nerf_small"};

constexpr Signature kSignatures[] = {
    {.names = "distilled_guidance_layer.* double_blocks.0.img_attn.qkv.weight nerf_blocks.0.param_generator.weight",
     .whose = "Chroma Radiance's"},
};

constexpr PresetRule kKeep[] = {
    {R"(distilled_guidance_layer\..*)", "distilled guidance"},
    {R"(nerf_(?:blocks|image_embedder)\..*)", "pixel decoder"},
    {R"(img_in_patch)", "first layer"},
    {R"(txt_in)", "text input"},
    {R"(nerf_final_layer(?:_conv)?\..*)", "last layer"},
    {R"(__x0__)", "marker of the prediction type"},
};

}  // namespace

extern const Preset preset_chroma_radiance = {.name = "chroma_radiance",
                                              .summary = "Chroma Radiance (pixel space)",
                                              .part = Part::diffusion_model,
                                              .aliases = kAliases,
                                              .signatures = kSignatures,
                                              .keep = kKeep};

}  // namespace mezzotint::convert::presets
