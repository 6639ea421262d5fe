// PixArt by diffusers' names (ComfyUI: comfy/utils.py, pixart_to_diffusers).
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_pixart(const Names& names) {
  return names.any("blocks.0.cross_attn.kv_linear.") && names.any("t_block.1.");
}

void add_pixart(const Names& names, Aliases& aliases) {
  for (int64_t i = 0, n = names.blocks("blocks."); i < n; ++i) {
    const std::string d = fmt::format("transformer_blocks.{}.", i), p = fmt::format("blocks.{}.", i);
    const int64_t h = names.dim(p + "attn.qkv", 0) / 3;
    aliases.add_slices(d + "attn1.", {"to_q", "to_k", "to_v"}, p + "attn.qkv", h);
    aliases.add_slices(d + "attn2.", {"to_k", "to_v"}, p + "cross_attn.kv_linear", h);
    aliases.add_pairs(d, p,
                      {{"attn2.to_q", "cross_attn.q_linear"},
                       {"attn1.to_out.0", "attn.proj"},
                       {"attn2.to_out.0", "cross_attn.proj"},
                       {"ff.net.0.proj", "mlp.fc1"},
                       {"ff.net.2", "mlp.fc2"}});
  }
  for (const auto& [theirs, ours] :
       {std::pair{"timestep", "t_embedder"}, {"resolution", "csize_embedder"}, {"aspect_ratio", "ar_embedder"}}) {
    const std::string d = fmt::format("adaln_single.emb.{}_embedder.", theirs), p = fmt::format("{}.mlp.", ours);
    aliases.add_pairs(d, p, {{"linear_1", "0"}, {"linear_2", "2"}});
  }
  aliases.add_pairs("", "",
                    {{"pos_embed.proj", "x_embedder.proj"},
                     {"caption_projection.linear_1", "y_embedder.y_proj.fc1"},
                     {"caption_projection.linear_2", "y_embedder.y_proj.fc2"},
                     {"adaln_single.linear", "t_block.1"},
                     {"proj_out", "final_layer.linear"}});
}

}  // namespace

extern const Family family_pixart = {.name = "PixArt", .fits = fits_pixart, .add = add_pixart};

}  // namespace mezzotint::adapter
