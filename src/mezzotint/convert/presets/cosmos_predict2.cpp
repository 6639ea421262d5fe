#include "mezzotint/convert/preset.h"

// Cosmos Predict2.
//
// Kept: the parts of convert_to_quant's `anima` filter that name inputs and outputs; Anima is this network with an
// adapter.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"cosmos2", "cosmos"};

constexpr Signature kSignatures[] = {
    {.names =
         "blocks.0.mlp.layer1.weight blocks.0.self_attn.output_proj.weight x_embedder.proj.1.weight !llm_adapter.*",
     .whose = "Cosmos Predict2's"},
};

constexpr PresetRule kKeep[] = {
    {R"(final_layer\..*)", "last layer"},
    {R"(t_embedder\.\d\.linear_\d)", "time embedding"},
    {R"(x_embedder\.proj\.\d)", "first layer"},
    {R"(blocks\.\d+\.adaln_modulation_\w+\.\d)", "modulation"},
};

}  // namespace

extern const Preset preset_cosmos_predict2 = {.name = "cosmos_predict2",
                                              .summary = "Cosmos Predict2",
                                              .part = Part::diffusion_model,
                                              .aliases = kAliases,
                                              .signatures = kSignatures,
                                              .keep = kKeep};

}  // namespace mezzotint::convert::presets
