#include "mezzotint/convert/preset.h"

// GPT-OSS, a mixture of experts. The expert banks [experts, out, in] are quantized, the router is not: it decides alone
// which experts run. No published recipe names layers.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"gptoss"};

constexpr Signature kSignatures[] = {
    {.names = "layers.0.self_attn.sinks layers.0.mlp.experts.gate_up_proj.weight", .whose = "GPT-OSS's"},
    {.names = "model.layers.0.self_attn.sinks model.layers.0.mlp.router.weight", .whose = "GPT-OSS's"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:model\.)?layers\.\d+\.mlp\.router)", "router"},
    {R"((?:model\.)?embed_tokens)", "embedding table"},
    {R"(lm_head)", "last layer"},
};

}  // namespace

extern const Preset preset_gpt_oss = {.name = "gpt_oss",
                                      .summary = "GPT-OSS text encoder (Lens)",
                                      .part = Part::text_encoder,
                                      .aliases = kAliases,
                                      .signatures = kSignatures,
                                      .keep = kKeep};

}  // namespace mezzotint::convert::presets
