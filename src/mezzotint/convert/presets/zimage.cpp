#include "mezzotint/convert/preset.h"

// Z-Image (base, Turbo, Omni, pixel space).
//
// Kept: convert_to_quant's `zimage` filter: cap_embedder, x_embedder, clip_text_pooled_proj, final_layer,
// adaLN_modulation, t_embedder, time_text_embed (all others are norms and pad tokens, which are not matrices). Ours:
// the image input siglip_embedder and the pixel decoder dec_net.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"z_image", "z_image_turbo"};

bool wide(const Keys& keys) {
  return keys.dim("cap_embedder.1.weight", 0) == 3840;
}

constexpr Signature kSignatures[] = {
    {.names = "cap_pad_token noise_refiner.0.attention.k_norm.weight cap_embedder.1.weight", .whose = "Z-Image's"},
    {.names = "noise_refiner.0.attention.k_norm.weight cap_embedder.1.weight",
     .whose = "Lumina 2's at Z-Image's width",
     .check = wide},
    {.names = "all_x_embedder.* noise_refiner.0.attention.to_q.weight cap_embedder.1.weight",
     .whose = "Z-Image's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(x_embedder|all_x_embedder\..*)", "first layer"},
    {R"(cap_embedder\.\d|clip_text_pooled_proj\.\d)", "text input"},
    {R"(siglip_embedder\.\d)", "image input"},
    {R"(t_embedder\.mlp\.\d|time_text_embed\..*)", "time embedding"},
    {R"((?:layers|noise_refiner|context_refiner|siglip_refiner)\.\d+\.adaLN_modulation\.\d)", "modulation"},
    {R"(final_layer\..*|all_final_layer\..*)", "last layer"},
    {R"(dec_net\..*)", "pixel decoder"},
};

}  // namespace

extern const Preset preset_zimage = {.name = "zimage",
                                     .summary = "Z-Image",
                                     .part = Part::diffusion_model,
                                     .aliases = kAliases,
                                     .signatures = kSignatures,
                                     .keep = kKeep};

}  // namespace mezzotint::convert::presets
