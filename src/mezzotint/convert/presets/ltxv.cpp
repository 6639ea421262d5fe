#include <fmt/format.h>

#include "mezzotint/convert/preset.h"

// LTX-Video 0.9.x.
//
// Kept: the parts of convert_to_quant's `ltxv2` filter that exist without audio (adaln_single, patchify_proj, proj_out,
// scale_shift_table), and caption_projection, the text input. The first and last blocks, which that filter keeps for
// LTX-2's 48, are quantized here.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"ltx", "ltx_video", "ltxvideo"};

constexpr Signature kSignatures[] = {
    {.names = "adaln_single.emb.timestep_embedder.linear_1.weight patchify_proj.weight !audio_adaln_single.*",
     .whose = "LTX-Video's"},
    {.names = "time_embed.emb.timestep_embedder.linear_1.weight caption_projection.linear_1.weight proj_in.weight "
              "scale_shift_table !audio_proj_in.*",
     .whose = "LTX-Video's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(patchify_proj|proj_in)", "first layer"},
    {R"(proj_out)", "last layer"},
    {R"((?:adaln_single|time_embed)\..*)", "modulation"},
    {R"(caption_projection\.linear_\d)", "text input"},
};

std::string variant(const Keys& keys) {
  return fmt::format("{} blocks, width {}", keys.blocks("transformer_blocks."),
                     keys.dim("transformer_blocks.0.attn1.to_q.weight", 0));
}

}  // namespace

extern const Preset preset_ltxv = {.name = "ltxv",
                                   .summary = "LTX-Video 0.9.x",
                                   .part = Part::diffusion_model,
                                   .aliases = kAliases,
                                   .signatures = kSignatures,
                                   .keep = kKeep,
                                   .variant = variant};

}  // namespace mezzotint::convert::presets
