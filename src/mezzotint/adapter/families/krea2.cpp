// Krea 2 by diffusers' names (ComfyUI: comfy/utils.py, krea2_to_diffusers).
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_krea2(const Names& names) {
  return names.any("blocks.0.attn.wq.") && names.any("txtfusion.");
}

void add_krea2_blocks(const std::string& theirs, const std::string& ours, const Names& names, Aliases& aliases) {
  for (int64_t i = 0, n = names.blocks(ours + "."); i < n; ++i) {
    aliases.add_pairs(fmt::format("{}.{}.", theirs, i), fmt::format("{}.{}.", ours, i),
                      {{"attn.to_q", "attn.wq"},
                       {"attn.to_k", "attn.wk"},
                       {"attn.to_v", "attn.wv"},
                       {"attn.to_gate", "attn.gate"},
                       {"attn.to_out.0", "attn.wo"},
                       {"attn.to_out", "attn.wo"},
                       {"ff.gate", "mlp.gate"},
                       {"ff.up", "mlp.up"},
                       {"ff.down", "mlp.down"}});
  }
}

void add_krea2(const Names& names, Aliases& aliases) {
  add_krea2_blocks("transformer_blocks", "blocks", names, aliases);
  add_krea2_blocks("text_fusion.layerwise_blocks", "txtfusion.layerwise_blocks", names, aliases);
  add_krea2_blocks("text_fusion.refiner_blocks", "txtfusion.refiner_blocks", names, aliases);
  aliases.add_pairs("", "",
                    {{"img_in", "first"},
                     {"time_embed.linear_1", "tmlp.0"},
                     {"time_embed.linear_2", "tmlp.2"},
                     {"time_mod_proj", "tproj.1"},
                     {"txt_in.linear_1", "txtmlp.1"},
                     {"txt_in.linear_2", "txtmlp.3"},
                     {"text_fusion.projector", "txtfusion.projector"},
                     {"final_layer.linear", "last.linear"}});
}

}  // namespace

extern const Family family_krea2 = {.name = "Krea 2", .fits = fits_krea2, .add = add_krea2};

}  // namespace mezzotint::adapter
