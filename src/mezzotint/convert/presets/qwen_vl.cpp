#include "mezzotint/convert/preset.h"

// Qwen 2.5-VL (Qwen-Image, HunyuanVideo 1.5) and Qwen 3-VL.
//
// Kept: convert_to_quant's `visual` filter, mlp.down_proj, .up_proj and .gate_proj, for the vision tower as its help
// text says; the bare substrings would also keep every feed-forward layer of the language model. Ours: the patch
// embedding, the position table and the mergers, as in its `qwen35` filter.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"visual", "qwen25_vl", "qwen2_5_vl", "qwen3_vl", "qwen25vl", "qwen3vl"};

constexpr Signature kSignatures[] = {
    {.names = "visual.blocks.0.attn.qkv.weight model.layers.0.self_attn.q_proj.weight", .whose = "Qwen-VL's"},
    {.names = "model.visual.blocks.0.attn.qkv.weight model.language_model.layers.0.self_attn.q_proj.weight",
     .whose = "Qwen-VL's, in Hugging Face's names"},
    {.names = "visual.blocks.0.attn.qkv.weight model.language_model.layers.0.self_attn.q_proj.weight",
     .whose = "Qwen-VL's"},
};

constexpr PresetRule kKeep[] = {
    {R"((?:model\.)?visual\.blocks\.\d+\.mlp\.(?:down_proj|up_proj|gate_proj|linear_fc[12]))",
     "feed-forward of the vision tower"},
    {R"((?:model\.)?visual\.(?:patch_embed|pos_embed)(?:\..*)?)", "image input"},
    {R"((?:model\.)?visual\.(?:merger|deepstack_merger_list)\..*)", "image output"},
    {R"((?:model\.)?(?:language_model\.)?embed_tokens)", "embedding table"},
    {R"(lm_head)", "last layer"},
};

constexpr NormReaders kNorms[] = {
    {"input_layernorm", "self_attn.q_proj self_attn.k_proj self_attn.v_proj"},
    {"post_attention_layernorm", "mlp.gate_proj mlp.up_proj mlp.gate"},
};

}  // namespace

extern const Preset preset_qwen_vl = {.name = "qwen_vl",
                                      .summary = "Qwen 2.5-VL and Qwen 3-VL text encoders",
                                      .part = Part::text_encoder,
                                      .aliases = kAliases,
                                      .signatures = kSignatures,
                                      .keep = kKeep,
                                      .norms = kNorms};

}  // namespace mezzotint::convert::presets
