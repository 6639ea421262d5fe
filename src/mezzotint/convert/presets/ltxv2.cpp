#include "mezzotint/convert/preset.h"

// LTX-2 (audio + video).
//
// Kept: convert_to_quant's `ltxv2` filter: every *adaln_single, the patchify and output projections, both embeddings
// connectors, to_gate_logits, the text projections, and blocks 0, 1, 46 and 47 of the 48. Its audio_vae, vae and
// vocoder entries are components of their own here. Ours: the caption projections, text inputs in every architecture.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"ltx2", "ltx_2", "ltxav", "ltx2_3"};

constexpr Signature kSignatures[] = {
    {.names = "audio_adaln_single.linear.weight patchify_proj.weight transformer_blocks.0.audio_attn1.to_q.weight",
     .whose = "LTX-2's"},
    {.names = "audio_proj_in.weight audio_time_embed.linear.weight transformer_blocks.0.audio_attn1.to_q.weight",
     .whose = "LTX-2's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(transformer_blocks\.(?:0|1|46|47)\..*)", "first or last blocks"},
    {R"(transformer_blocks\.\d+\.\w+\.to_gate_logits)", "attention gate"},
    {R"((?:audio_)?(?:patchify_proj|proj_in))", "first layer"},
    {R"((?:audio_)?proj_out)", "last layer"},
    {R"((?:audio_)?(?:prompt_)?adaln_single\..*)", "modulation"},
    {R"(av_ca_\w+_adaln_single\..*)", "modulation"},
    {R"((?:audio_)?time_embed\..*|av_cross_attn_\w+\..*)", "modulation"},
    {R"((?:audio|video)_embeddings_connector\..*)", "embeddings connector"},
    {R"((?:audio_)?caption_projection\.linear_\d|text_embedding_projection\..*)", "text input"},
};

}  // namespace

extern const Preset preset_ltxv2 = {.name = "ltxv2",
                                    .summary = "LTX-2 (audio and video)",
                                    .part = Part::diffusion_model,
                                    .aliases = kAliases,
                                    .signatures = kSignatures,
                                    .keep = kKeep};

}  // namespace mezzotint::convert::presets
