#include "mezzotint/convert/preset.h"

// Mistral text encoders (FLUX.2's).
//
// Kept: convert_to_quant's `mistral` filter, which is its AVOID list: norms, embed_tokens, lm_head, tekken_model,
// multi_modal_projector, patch_conv, ln_pre.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"mistral3", "ministral", "pixtral"};

bool wide(const Keys& keys) {
  const int64_t width = keys.dim("model.layers.0.post_attention_layernorm.weight", 0);
  return width == 5120 || (width == 3072 && keys.dim("model.embed_tokens.weight", 0) == 131072);
}

constexpr Signature kSignatures[] = {
    {.names = "model.layers.0.self_attn.q_proj.weight tekken_model", .whose = "Mistral's, in ComfyUI's file"},
    {.names = "model.layers.0.self_attn.q_proj.weight model.layers.0.post_attention_layernorm.weight "
              "!model.layers.0.self_attn.q_norm.weight !model.layers.0.self_attn.k_proj.bias",
     .whose = "Mistral's at its width",
     .confidence = 90,
     .check = wide},
    {.names = "language_model.model.layers.0.self_attn.q_proj.weight vision_tower.patch_conv.weight",
     .whose = "Pixtral's"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:language_model\.)?(?:model\.)?embed_tokens)", "embedding table"},
    {R"((?:language_model\.)?lm_head)", "last layer"},
    {R"(tekken_model)", "tokenizer"},
    {R"(multi_modal_projector\..*)", "image input"},
    {R"(vision_tower\.(?:patch_conv|ln_pre))", "image input"},
};

constexpr NormReaders kNorms[] = {
    {"input_layernorm", "self_attn.q_proj self_attn.k_proj self_attn.v_proj"},
    {"post_attention_layernorm", "mlp.gate_proj mlp.up_proj mlp.gate"},
};

}  // namespace

extern const Preset preset_mistral = {.name = "mistral",
                                      .summary = "Mistral and Pixtral text encoders (FLUX.2)",
                                      .part = Part::text_encoder,
                                      .aliases = kAliases,
                                      .signatures = kSignatures,
                                      .keep = kKeep,
                                      .norms = kNorms};

}  // namespace mezzotint::convert::presets
