#include "mezzotint/convert/preset.h"

// T5, UMT5 and ByT5 encoders.
//
// Kept: convert_to_quant's `t5xxl` filter, which is its AVOID list: norms, shared, embed_tokens, lm_head. That filter
// also deletes the decoder; here it is only kept in its dtype (--drop deletes). Ours: the position bias.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"t5xxl", "t5_xxl", "umt5", "umt5xxl", "umt5_xxl", "byt5", "pile_t5"};

constexpr Signature kSignatures[] = {
    {.names = "encoder.block.0.layer.0.SelfAttention.q.weight encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
     .whose = "T5's"},
    {.names = "encoder.block.0.layer.0.SelfAttention.q.weight encoder.block.0.layer.1.DenseReluDense.wi.weight",
     .whose = "T5 1.0's"},
};

constexpr PresetRule kKeep[] = {
    {R"(shared|(?:encoder|decoder)\.embed_tokens)", "embedding table"},
    {R"(lm_head)", "last layer"},
    {R"(decoder\..*)", "decoder, not used by diffusion models"},
    {R"(encoder\.block\.\d+\.layer\.0\.SelfAttention\.relative_attention_bias)", "position bias"},
};

constexpr NormReaders kNorms[] = {
    {"layer.0.layer_norm", "layer.0.SelfAttention.q layer.0.SelfAttention.k layer.0.SelfAttention.v"},
    {"layer.1.layer_norm", "layer.1.DenseReluDense.wi_0 layer.1.DenseReluDense.wi_1 layer.1.DenseReluDense.wi"},
};

}  // namespace

extern const Preset preset_t5 = {.name = "t5",
                                 .summary = "T5 and UMT5 text encoders (T5-XXL, UMT5-XXL, ByT5, Pile-T5)",
                                 .part = Part::text_encoder,
                                 .aliases = kAliases,
                                 .signatures = kSignatures,
                                 .keep = kKeep,
                                 .norms = kNorms};

}  // namespace mezzotint::convert::presets
