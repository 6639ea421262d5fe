#include "mezzotint/convert/preset.h"

// Gemma 4.
//
// Kept: convert_to_quant's `gemma4` filter: audio, vision, multi_modal_projector, per_layer_input_gate,
// per_layer_projection, each as the module it means.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"gemma_4"};

constexpr Signature kSignatures[] = {
    {.names = "model.layers.0.per_layer_input_gate.weight model.layers.0.post_feedforward_layernorm.weight",
     .whose = "Gemma 4's"},
    {.names = "model.layers.0.layer_scalar model.layers.0.post_feedforward_layernorm.weight", .whose = "Gemma 4's"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:model\.)?(?:audio_(?:model|tower|projector)|embed_audio)\..*)", "audio encoder"},
    {R"((?:model\.)?(?:vision_(?:model|tower|embedder)|embed_vision)\..*)", "vision tower"},
    {R"((?:model\.)?multi_modal_projector\..*)", "image input"},
    {R"((?:model\.)?layers\.\d+\.per_layer_(?:input_gate|projection))", "per-layer input"},
    {R"((?:model\.)?embed_tokens(?:_per_layer)?)", "embedding table"},
    {R"(lm_head)", "last layer"},
};

}  // namespace

extern const Preset preset_gemma4 = {.name = "gemma4",
                                     .summary = "Gemma 4 text encoders",
                                     .part = Part::text_encoder,
                                     .aliases = kAliases,
                                     .signatures = kSignatures,
                                     .keep = kKeep};

}  // namespace mezzotint::convert::presets
