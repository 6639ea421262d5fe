#include "mezzotint/convert/preset.h"

// Stable Diffusion 3 and 3.5.
//
// Kept: the generic first and last layers under MMDiT's names; convert_to_quant has no filter for it. The modulation of
// the blocks is quantized, our choice: it is a third of the parameters.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"sd3_5", "sd35", "mmdit"};

constexpr Signature kSignatures[] = {
    {.names = "joint_blocks.0.x_block.attn.qkv.weight joint_blocks.0.context_block.attn.qkv.weight",
     .whose = "Stable Diffusion 3's"},
    {.names = "transformer_blocks.0.norm1_context.linear.weight pos_embed.proj.weight context_embedder.weight "
              "!single_transformer_blocks.*",
     .whose = "Stable Diffusion 3's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(x_embedder\.proj|pos_embed\.proj)", "first layer"},
    {R"(context_embedder)", "text input"},
    {R"([ty]_embedder\.mlp\.\d|time_text_embed\..*)", "time embedding"},
    {R"(context_processor\..*)", "text input"},
    {R"(final_layer\..*|norm_out\.linear|proj_out)", "last layer"},
};

constexpr PresetRule kQuantize[] = {
    {R"(joint_blocks\.\d+\.(?:x|context)_block\.adaLN_modulation\.1)", "modulation of a block"},
    {R"(transformer_blocks\.\d+\.norm1(?:_context)?\.linear)", "modulation of a block"},
};

}  // namespace

extern const Preset preset_sd3 = {.name = "sd3",
                                  .summary = "Stable Diffusion 3 and 3.5",
                                  .part = Part::diffusion_model,
                                  .aliases = kAliases,
                                  .signatures = kSignatures,
                                  .keep = kKeep,
                                  .quantize = kQuantize};

}  // namespace mezzotint::convert::presets
