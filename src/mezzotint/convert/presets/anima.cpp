#include "mezzotint/convert/preset.h"

// Anima: Cosmos Predict2 with a text adapter. The published file wraps every name in "net.", which detection takes off.
//
// Kept: convert_to_quant's `anima` filter: all of block 0, the modulation of block 1, final_layer, llm_adapter,
// t_embedder, x_embedder. The modulation of the other blocks stays by the generic rule; it is small (rank 256).
namespace mezzotint::convert::presets {
namespace {

constexpr Signature kSignatures[] = {
    {.names = "llm_adapter.blocks.0.cross_attn.q_proj.weight blocks.0.mlp.layer1.weight", .whose = "Anima's"},
};

constexpr PresetRule kKeep[] = {
    {R"(blocks\.0\..*)", "first block"},
    {R"(blocks\.1\.adaln_modulation_\w+\.\d)", "modulation"},
    {R"(final_layer\..*)", "last layer"},
    {R"(llm_adapter\..*)", "text adapter"},
    {R"(t_embedder\.\d\.linear_\d)", "time embedding"},
    {R"(x_embedder\.proj\.\d)", "first layer"},
};

}  // namespace

extern const Preset preset_anima = {.name = "anima",
                                    .summary = "Anima",
                                    .part = Part::diffusion_model,
                                    .aliases = {},
                                    .signatures = kSignatures,
                                    .keep = kKeep};

}  // namespace mezzotint::convert::presets
