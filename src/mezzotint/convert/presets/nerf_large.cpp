#include "mezzotint/convert/preset.h"

// Chroma Radiance with more layers kept: convert_to_quant's `nerf_large` filter, which adds the output projections of
// the attention (`_attn.proj`) to `nerf_small`. Chosen by name only.
namespace mezzotint::convert::presets {
namespace {

constexpr PresetRule kKeep[] = {
    {R"(distilled_guidance_layer\..*)", "distilled guidance"},
    {R"(nerf_(?:blocks|image_embedder)\..*)", "pixel decoder"},
    {R"(double_blocks\.\d+\.(?:img|txt)_attn\.proj)", "attention output"},
    {R"(img_in_patch)", "first layer"},
    {R"(txt_in)", "text input"},
    {R"(nerf_final_layer(?:_conv)?\..*)", "last layer"},
};

}  // namespace

extern const Preset preset_nerf_large = {.name = "nerf_large",
                                         .summary = "Chroma Radiance, attention outputs kept too",
                                         .part = Part::diffusion_model,
                                         .aliases = {},
                                         .signatures = {},
                                         .keep = kKeep};

}  // namespace mezzotint::convert::presets
