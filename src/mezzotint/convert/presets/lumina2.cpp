#include "mezzotint/convert/preset.h"

// Lumina Image 2.0 and models built like it (NewBie, Neta).
//
// Kept: the parts of convert_to_quant's `zimage` filter that exist here; Z-Image is the same network at another width.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"lumina", "lumina_2", "newbie"};

constexpr Signature kSignatures[] = {
    {.names = "noise_refiner.0.attention.k_norm.weight cap_embedder.1.weight !cap_pad_token",
     .whose = "Lumina 2's",
     .confidence = 90},
    {.names = "noise_refiner.0.attn.to_q.weight time_caption_embed.caption_embedder.1.weight "
              "!ref_image_patch_embedder.*",
     .whose = "Lumina 2's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(x_embedder)", "first layer"},
    {R"(cap_embedder\.\d|clip_text_pooled_proj\.\d)", "text input"},
    {R"(t_embedder\.mlp\.\d|time_text_embed\..*|time_caption_embed\..*)", "time and text embedding"},
    {R"((?:layers|noise_refiner|context_refiner)\.\d+\.(?:adaLN_modulation\.\d|norm1\.linear))", "modulation"},
    {R"(final_layer\..*|norm_out\.linear_\d)", "last layer"},
};

}  // namespace

extern const Preset preset_lumina2 = {.name = "lumina2",
                                      .summary = "Lumina Image 2.0",
                                      .part = Part::diffusion_model,
                                      .aliases = kAliases,
                                      .signatures = kSignatures,
                                      .keep = kKeep};

}  // namespace mezzotint::convert::presets
