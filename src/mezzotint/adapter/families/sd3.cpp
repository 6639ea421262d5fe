// Stable Diffusion 3 and 3.5 by diffusers' names (ComfyUI: comfy/utils.py, mmdit_to_diffusers).
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_sd3(const Names& names) {
  return names.any("joint_blocks.0.x_block.");
}

void add_sd3_block(int64_t i, bool last, const Names& names, Aliases& aliases) {
  const std::string d = fmt::format("transformer_blocks.{}.", i), p = fmt::format("joint_blocks.{}.", i);
  const int64_t h = names.dim(p + "x_block.attn.qkv", 0) / 3;
  aliases.add_slices(d + "attn.", {"to_q", "to_k", "to_v"}, p + "x_block.attn.qkv", h);
  aliases.add_slices(d + "attn.", {"add_q_proj", "add_k_proj", "add_v_proj"}, p + "context_block.attn.qkv", h);
  aliases.add_slices(d + "attn2.", {"to_q", "to_k", "to_v"}, p + "x_block.attn2.qkv", h);
  aliases.add_pairs(d, p,
                    {{"attn.to_out.0", "x_block.attn.proj"},
                     {"attn.to_add_out", "context_block.attn.proj"},
                     {"attn2.to_out.0", "x_block.attn2.proj"},
                     {"ff.net.0.proj", "x_block.mlp.fc1"},
                     {"ff.net.2", "x_block.mlp.fc2"},
                     {"ff_context.net.0.proj", "context_block.mlp.fc1"},
                     {"ff_context.net.2", "context_block.mlp.fc2"},
                     {"norm1.linear", "x_block.adaLN_modulation.1"},
                     {"attn.norm_q", "x_block.attn.ln_q"},
                     {"attn.norm_k", "x_block.attn.ln_k"},
                     {"attn2.norm_q", "x_block.attn2.ln_q"},
                     {"attn2.norm_k", "x_block.attn2.ln_k"},
                     {"attn.norm_added_q", "context_block.attn.ln_q"},
                     {"attn.norm_added_k", "context_block.attn.ln_k"}});
  // The last block only normalizes its context: two chunks, in the other order.
  if (last) {
    aliases.add_swapped(d + "norm1_context.linear", p + "context_block.adaLN_modulation.1");
  } else {
    aliases.add(d + "norm1_context.linear", p + "context_block.adaLN_modulation.1");
  }
}

void add_sd3(const Names& names, Aliases& aliases) {
  const int64_t blocks = names.blocks("joint_blocks.");
  for (int64_t i = 0; i < blocks; ++i) add_sd3_block(i, i == blocks - 1, names, aliases);
  aliases.add_pairs("", "",
                    {{"time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"},
                     {"time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"},
                     {"time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"},
                     {"time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"},
                     {"pos_embed.proj", "x_embedder.proj"},
                     {"proj_out", "final_layer.linear"}});
  aliases.add_swapped("norm_out.linear", "final_layer.adaLN_modulation.1");
}

}  // namespace

extern const Family family_sd3 = {.name = "Stable Diffusion 3", .fits = fits_sd3, .add = add_sd3};

}  // namespace mezzotint::adapter
