#include "mezzotint/convert/preset.h"

// Qwen 3.5 (gated delta net).
//
// Kept: convert_to_quant's `qwen35` filter: layers 0 and 63, lm_head, embed_tokens, in_proj_a, in_proj_b,
// visual.pos_embed, visual.patch_embed, merger, mtp.fc, visual.blocks.0.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"qwen3_5"};

constexpr Signature kSignatures[] = {
    {.names = "model.language_model.layers.0.linear_attn.A_log model.language_model.layers.0.input_layernorm.weight",
     .whose = "Qwen 3.5's"},
    {.names = "model.layers.0.linear_attn.A_log model.layers.0.input_layernorm.weight", .whose = "Qwen 3.5's"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:model\.)?(?:language_model\.)?layers\.(?:0|63)\..*)", "first or last layer"},
    {R"((?:model\.)?(?:language_model\.)?layers\.\d+\.linear_attn\.in_proj_[ab])", "gates of the delta net"},
    {R"((?:model\.)?(?:language_model\.)?embed_tokens)", "embedding table"},
    {R"(lm_head)", "last layer"},
    {R"(mtp\.fc)", "multi-token prediction"},
    {R"((?:model\.)?visual\.(?:patch_embed|pos_embed)(?:\..*)?)", "image input"},
    {R"((?:model\.)?visual\.blocks\.0\..*)", "first block of the vision tower"},
    {R"((?:model\.)?visual\.merger\..*)", "image output"},
};

}  // namespace

extern const Preset preset_qwen35 = {.name = "qwen35",
                                     .summary = "Qwen 3.5 text encoders",
                                     .part = Part::text_encoder,
                                     .aliases = kAliases,
                                     .signatures = kSignatures,
                                     .keep = kKeep};

}  // namespace mezzotint::convert::presets
