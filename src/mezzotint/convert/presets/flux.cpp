#include "mezzotint/convert/preset.h"

// FLUX.1 (dev, schnell, Fill, Kontext, Krea) and models built like it.
//
// Kept: the generic first and last layers under FLUX's names; convert_to_quant has no filter for FLUX.1. The modulation
// of the blocks is quantized, our choice: it is a quarter of the parameters. (--exclude 'mod' keeps it.)
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"flux1", "flux_1", "flux1_dev", "flux1_schnell", "kontext"};

constexpr Signature kSignatures[] = {
    {.names = "double_blocks.0.img_attn.qkv.weight double_blocks.0.img_mod.lin.weight img_in.weight "
              "!txt_in.individual_token_refiner.* !distilled_guidance_layer.*",
     .whose = "FLUX.1's"},
    {.names = "single_transformer_blocks.0.proj_mlp.weight single_transformer_blocks.0.norm.linear.weight "
              "context_embedder.weight x_embedder.weight !distilled_guidance_layer.*",
     .whose = "FLUX.1's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(img_in|x_embedder)", "first layer"},
    {R"(txt_in|context_embedder)", "text input"},
    {R"((?:time|vector|guidance)_in\.(?:in|out)_layer|time_text_embed\..*)", "time and guidance embedding"},
    {R"(final_layer\..*|norm_out\.linear|proj_out)", "last layer"},
};

constexpr PresetRule kQuantize[] = {
    {R"(double_blocks\.\d+\.(?:img|txt)_mod\.lin|single_blocks\.\d+\.modulation\.lin)", "modulation of a block"},
    {R"(transformer_blocks\.\d+\.norm1(?:_context)?\.linear|single_transformer_blocks\.\d+\.norm\.linear)",
     "modulation of a block"},
};

}  // namespace

extern const Preset preset_flux = {.name = "flux",
                                   .summary = "FLUX.1",
                                   .part = Part::diffusion_model,
                                   .aliases = kAliases,
                                   .signatures = kSignatures,
                                   .keep = kKeep,
                                   .quantize = kQuantize};

}  // namespace mezzotint::convert::presets
