#include "mezzotint/convert/preset.h"

// Gemma 2 (Lumina 2) and Gemma 3 (LTX-2).
//
// Kept: the entries of convert_to_quant's AVOID list that exist here: embed_tokens, multi_modal_projector
// (mm_input_projection_weight is no ".weight"). Ours: the vision tower, which its `gemma4` filter keeps.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"gemma2", "gemma3"};

constexpr Signature kSignatures[] = {
    {.names = "model.layers.0.post_feedforward_layernorm.weight model.layers.0.self_attn.q_proj.weight",
     .whose = "Gemma's",
     .confidence = 90},
};

constexpr PresetRule kKeep[] = {
    {R"((?:model\.)?embed_tokens)", "embedding table"},
    {R"(lm_head)", "last layer"},
    {R"(multi_modal_projector\..*)", "image input"},
    {R"(vision_(?:model|tower)\..*)", "vision tower"},
};

}  // namespace

extern const Preset preset_gemma = {.name = "gemma",
                                    .summary = "Gemma 2 and 3 text encoders",
                                    .part = Part::text_encoder,
                                    .aliases = kAliases,
                                    .signatures = kSignatures,
                                    .keep = kKeep};

}  // namespace mezzotint::convert::presets
