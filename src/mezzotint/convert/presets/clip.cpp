#include "mezzotint/convert/preset.h"

// CLIP text encoders in Hugging Face's and OpenCLIP's names. No published recipe quantizes them; the generic rules
// apply.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"clip_l", "clip_g", "clip_h", "openclip"};

constexpr Signature kSignatures[] = {
    {.names = "text_model.encoder.layers.0.mlp.fc1.weight text_model.embeddings.token_embedding.weight",
     .whose = "CLIP's"},
    {.names = "resblocks.0.mlp.c_fc.weight", .whose = "OpenCLIP's", .confidence = 90},
    {.names = "transformer.resblocks.0.mlp.c_fc.weight token_embedding.weight", .whose = "OpenCLIP's"},
};

constexpr PresetRule kKeep[] = {
    {R"(text_model\.embeddings\.(?:token|position)_embedding|token_embedding)", "embedding table"},
    {R"(text_projection)", "last layer"},
};

constexpr NormReaders kNorms[] = {
    {"layer_norm1", "self_attn.q_proj self_attn.k_proj self_attn.v_proj"},
    {"layer_norm2", "mlp.fc1"},
};

}  // namespace

extern const Preset preset_clip = {.name = "clip",
                                   .summary = "CLIP text encoders",
                                   .part = Part::text_encoder,
                                   .aliases = kAliases,
                                   .signatures = kSignatures,
                                   .keep = kKeep,
                                   .norms = kNorms};

}  // namespace mezzotint::convert::presets
