// CLIP text encoders as OpenCLIP stores them (SDXL's second one, Stable Diffusion 2's), by transformers' names.
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_open_clip(const Names& names) {
  return names.has("transformer.resblocks.0.attn.in_proj_weight");
}

void add_open_clip(const Names& names, Aliases& aliases) {
  for (int64_t i = 0, n = names.blocks("transformer.resblocks."); i < n; ++i) {
    const std::string d = fmt::format("text_model.encoder.layers.{}.", i);
    const std::string p = fmt::format("transformer.resblocks.{}.", i);
    const auto fused = names.all().find(p + "attn.in_proj_weight");
    if (fused != names.all().end() && !fused->second.empty()) {
      aliases.add_slices(d + "self_attn.", {"q_proj", "k_proj", "v_proj"}, p + "attn.in_proj", fused->second[0] / 3);
    }
    aliases.add_pairs(d, p,
                      {{"self_attn.out_proj", "attn.out_proj"},
                       {"mlp.fc1", "mlp.c_fc"},
                       {"mlp.fc2", "mlp.c_proj"},
                       {"layer_norm1", "ln_1"},
                       {"layer_norm2", "ln_2"}});
  }
  aliases.add("text_model.final_layer_norm", "ln_final");
  aliases.add("text_model.embeddings.token_embedding", "token_embedding");
}

}  // namespace

extern const Family family_open_clip = {.name = "OpenCLIP", .fits = fits_open_clip, .add = add_open_clip};

}  // namespace mezzotint::adapter
