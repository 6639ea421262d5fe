#include "mezzotint/convert/preset.h"

// Any text encoder built like Llama: Llama 3, Qwen 2.5 and 3 without pictures, and whatever nothing else recognises.
//
// Kept: convert_to_quant's `generic_text` names no layers; embeddings and lm_head stay by the generic rules.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"generic_text", "llm", "qwen3", "qwen25", "llama3"};

constexpr Signature kSignatures[] = {
    {.names = "model.layers.0.self_attn.q_proj.weight model.layers.0.mlp.gate_proj.weight model.embed_tokens.weight",
     .whose = "a Llama-like language model's",
     .confidence = 60},
    {.names = "layers.0.self_attn.q_proj.weight layers.0.mlp.gate_proj.weight embed_tokens.weight",
     .whose = "a Llama-like language model's",
     .confidence = 55},
};

constexpr PresetRule kKeep[] = {
    {R"((?:model\.)?embed_tokens)", "embedding table"},
    {R"(lm_head)", "last layer"},
};

constexpr NormReaders kNorms[] = {
    {"input_layernorm", "self_attn.q_proj self_attn.k_proj self_attn.v_proj"},
    {"post_attention_layernorm", "mlp.gate_proj mlp.up_proj mlp.gate"},
};

}  // namespace

extern const Preset preset_llama = {.name = "llama",
                                    .summary = "Llama-like text encoders (Llama 3, Qwen 2.5, Qwen 3, others)",
                                    .part = Part::text_encoder,
                                    .aliases = kAliases,
                                    .signatures = kSignatures,
                                    .keep = kKeep,
                                    .norms = kNorms};

}  // namespace mezzotint::convert::presets
