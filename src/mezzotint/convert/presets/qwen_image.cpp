#include "mezzotint/convert/preset.h"

// Qwen-Image, Qwen-Image-Edit, Layered, and Mage-Flow, which is built like it. The file's names are diffusers' own.
//
// Kept: convert_to_quant's `qwen` filter: time_text_embed, img_in, txt_in, norm_out, proj_out and
// transformer_blocks.0.img_mod.1 (all others norms). Like that filter, the modulation of the other blocks is quantized:
// it is a third of the parameters.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"qwen", "qwenimage", "qwen_image_edit", "mage_flow"};

constexpr Signature kSignatures[] = {
    {.names = "txt_norm.weight transformer_blocks.0.img_mod.1.weight transformer_blocks.0.attn.add_q_proj.weight",
     .whose = "Qwen-Image's"},
};

constexpr PresetRule kKeep[] = {
    {R"(img_in)", "first layer"},
    {R"(txt_in)", "text input"},
    {R"(time_text_embed\..*)", "time embedding"},
    {R"(norm_out\.linear|proj_out)", "last layer"},
    {R"(transformer_blocks\.0\.img_mod\.1)", "modulation of the first block"},
};

constexpr PresetRule kQuantize[] = {
    {R"(transformer_blocks\.\d+\.(?:img|txt)_mod\.1)", "modulation of a block"},
};

}  // namespace

extern const Preset preset_qwen_image = {.name = "qwen_image",
                                         .summary = "Qwen-Image and Qwen-Image-Edit",
                                         .part = Part::diffusion_model,
                                         .aliases = kAliases,
                                         .signatures = kSignatures,
                                         .keep = kKeep,
                                         .quantize = kQuantize};

}  // namespace mezzotint::convert::presets
