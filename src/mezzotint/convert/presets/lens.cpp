#include "mezzotint/convert/preset.h"

// Lens.
//
// Kept: convert_to_quant's `lens` filter: time_text_embed, img_in, txt_in, norm_out, proj_out, and the modulation
// (img_mod.1, txt_mod.1) of every block.
namespace mezzotint::convert::presets {
namespace {

constexpr Signature kSignatures[] = {
    {.names = "transformer_blocks.0.img_mlp.w1.weight transformer_blocks.0.attn.img_qkv.weight", .whose = "Lens's"},
};

constexpr PresetRule kKeep[] = {
    {R"(img_in)", "first layer"},
    {R"(txt_in(?:\.\d+)?)", "text input"},
    {R"(time_text_embed\..*)", "time embedding"},
    {R"(transformer_blocks\.\d+\.(?:img|txt)_mod\.1)", "modulation"},
    {R"(norm_out\.linear|proj_out)", "last layer"},
};

}  // namespace

extern const Preset preset_lens = {.name = "lens",
                                   .summary = "Lens",
                                   .part = Part::diffusion_model,
                                   .aliases = {},
                                   .signatures = kSignatures,
                                   .keep = kKeep};

}  // namespace mezzotint::convert::presets
