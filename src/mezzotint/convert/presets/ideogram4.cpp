#include "mezzotint/convert/preset.h"

// Ideogram 4.
//
// Kept: convert_to_quant's `ideogram4` filter: embed_image_indicator, t_embedding, llm_cond_proj, adaln_proj,
// final_layer, input_proj; and, like musubi-tuner, the modulation of the blocks.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"ideogram", "ideogram_4"};

constexpr Signature kSignatures[] = {
    {.names = "embed_image_indicator.weight llm_cond_proj.weight", .whose = "Ideogram 4's"},
};

constexpr PresetRule kKeep[] = {
    {R"(embed_image_indicator)", "embedding table"},
    {R"(t_embedding\.mlp_(?:in|out))", "time embedding"},
    {R"(llm_cond_proj)", "text input"},
    {R"(adaln_proj|layers\.\d+\.adaln_modulation)", "modulation"},
    {R"(final_layer\..*)", "last layer"},
    {R"(input_proj)", "first layer"},
};

}  // namespace

extern const Preset preset_ideogram4 = {.name = "ideogram4",
                                        .summary = "Ideogram 4",
                                        .part = Part::diffusion_model,
                                        .aliases = kAliases,
                                        .signatures = kSignatures,
                                        .keep = kKeep};

}  // namespace mezzotint::convert::presets
