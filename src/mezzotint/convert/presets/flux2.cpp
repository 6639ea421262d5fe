#include "mezzotint/convert/preset.h"

// FLUX.2 (dev, klein).
//
// Kept: convert_to_quant's `flux2` filter: stream_modulation, guidance_in, time_in, final_layer, img_in, txt_in. The
// modulation is shared by all blocks here, so keeping it costs little.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"flux_2", "flux2_dev", "flux2_klein", "klein"};

constexpr Signature kSignatures[] = {
    {.names = "double_stream_modulation_img.lin.weight double_blocks.0.img_attn.qkv.weight", .whose = "FLUX.2's"},
    {.names = "double_stream_modulation_img.linear.weight single_transformer_blocks.0.attn.to_out.weight",
     .whose = "FLUX.2's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:double|single)_stream_modulation(?:_img|_txt)?\.lin(?:ear)?)", "modulation"},
    {R"((?:time|guidance)_in\.(?:in|out)_layer|time_guidance_embed\..*)", "time and guidance embedding"},
    {R"(img_in|x_embedder)", "first layer"},
    {R"(txt_in|context_embedder)", "text input"},
    {R"(final_layer\..*|norm_out\.linear|proj_out)", "last layer"},
};

}  // namespace

extern const Preset preset_flux2 = {.name = "flux2",
                                    .summary = "FLUX.2",
                                    .part = Part::diffusion_model,
                                    .aliases = kAliases,
                                    .signatures = kSignatures,
                                    .keep = kKeep};

}  // namespace mezzotint::convert::presets
