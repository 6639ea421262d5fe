#include <fmt/format.h>

#include "mezzotint/convert/preset.h"

// Wan 2.1 and 2.2: t2v, i2v, FLF2V, VACE, camera, S2V, HuMo, Animate, SCAIL, Dancer.
//
// Kept: convert_to_quant's `wan` filter (text, time and image embeddings, time_projection, head.head, the audio and
// face encoders, audio_injector, frame_packer, trainable_cond_mask, ref_conv, control_adapter, motion_encoder, and
// patch_embedding from its AVOID list), which agrees with musubi-tuner's exclusions. Ours: HuMo's audio_proj, Dancer's
// music modules and SCAIL's pose embedding, by analogy with their counterparts in the filter; VACE's blocks are
// quantized like the main ones. Their text_embedding and time_embedding have no other meaning here, so nothing else in
// the filter needs a rule: norms are 1-D.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"wan2", "wan2_1", "wan2_2", "wan21", "wan22", "wanvideo"};

constexpr Signature kSignatures[] = {
    {.names = "head.modulation blocks.0.self_attn.q.weight", .whose = "Wan's"},
    {.names = "video_model.head.modulation video_model.blocks.0.self_attn.q.weight", .whose = "Wan's with audio"},
    {.names = "blocks.0.attn1.to_q.weight condition_embedder.time_embedder.linear_1.weight",
     .whose = "Wan's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:(?:audio|video)_model\.)?(?:(?:vace|pose)_)?patch_embedding(?:_(?:pose|mask|global))?)", "first layer"},
    {R"((?:(?:audio|video)_model\.)?text_embedding\.\d+)", "text embedding"},
    {R"((?:(?:audio|video)_model\.)?time_embedding\.\d+)", "time embedding"},
    {R"((?:(?:audio|video)_model\.)?time_projection\.\d+)", "modulation"},
    {R"((?:(?:audio|video)_model\.)?head(?:_global)?\.head)", "last layer"},
    {R"(img_emb\.proj\.\d+)", "image embedding"},
    {R"(trainable_cond_mask|cond_encoder|ref_conv|frame_packer\.\w+)", "conditioning input"},
    {R"(control_adapter\..*)", "camera adapter"},
    {R"(casual_audio_encoder\..*|audio_proj\..*|music_projection|music_encoder\..*)", "audio encoder"},
    {R"(audio_injector\..*|music_injector\..*)", "audio injection"},
    {R"(face_encoder\..*|motion_encoder\..*)", "face and motion encoder"},
    {R"(face_adapter\..*)", "face adapter"},
    {R"(condition_embedder\.(?:text|image|time)_embedder\..*)", "embedding of conditions"},
    {R"(condition_embedder\.time_proj)", "modulation"},
    {R"(proj_out)", "last layer"},
};

std::string variant(const Keys& keys) {
  const char* kind = keys.has("vace_patch_embedding.weight")                                  ? "vace"
                     : keys.has("control_adapter.conv.weight")                                ? "camera"
                     : keys.any("casual_audio_encoder.")                                      ? "s2v"
                     : keys.any("audio_proj.audio_proj_glob_1.")                              ? "humo"
                     : keys.any("face_adapter.")                                              ? "animate"
                     : keys.any("patch_embedding_pose.")                                      ? "scail"
                     : keys.any("patch_embedding_global.")                                    ? "dancer"
                     : keys.any("img_emb.") || keys.any("condition_embedder.image_embedder.") ? "i2v"
                     : keys.dim("patch_embedding.weight", 1) == 36                            ? "i2v (2.2)"
                     : keys.dim("patch_embedding.weight", 1) == 48                            ? "ti2v (2.2)"
                                                                                              : "t2v";
  const int64_t width = keys.dim("patch_embedding.weight", 0);
  return fmt::format("{}, {} blocks, width {}", kind, keys.blocks("blocks."), width);
}

}  // namespace

extern const Preset preset_wan = {.name = "wan",
                                  .summary = "Wan 2.1 and 2.2 video (all variants)",
                                  .part = Part::diffusion_model,
                                  .aliases = kAliases,
                                  .signatures = kSignatures,
                                  .keep = kKeep,
                                  .variant = variant};

}  // namespace mezzotint::convert::presets
