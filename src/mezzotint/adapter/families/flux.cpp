// Flux.1, Chroma and Flux.2 by diffusers' names (ComfyUI: comfy/utils.py, flux_to_diffusers).
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

void add_flux_double(int64_t i, int64_t h, Aliases& aliases) {
  const std::string d = fmt::format("transformer_blocks.{}.", i), p = fmt::format("double_blocks.{}.", i);
  aliases.add_slices(d + "attn.", {"to_q", "to_k", "to_v"}, p + "img_attn.qkv", h);
  aliases.add_slices(d + "attn.", {"add_q_proj", "add_k_proj", "add_v_proj"}, p + "txt_attn.qkv", h);
  for (const auto& [theirs, ours] : {std::pair{"norm1", "img"}, {"norm1_context", "txt"}}) {
    aliases.add(d + theirs + ".linear", p + ours + "_mod.lin");
  }
  aliases.add(d + "attn.to_out.0", p + "img_attn.proj");
  aliases.add(d + "attn.to_add_out", p + "txt_attn.proj");
  for (const auto& [theirs, ours] : {std::pair{"ff", "img_mlp"}, {"ff_context", "txt_mlp"}}) {
    aliases.add(d + theirs + ".net.0.proj", p + ours + ".0");
    aliases.add(d + theirs + ".linear_in", p + ours + ".0");
    aliases.add(d + theirs + ".net.2", p + ours + ".2");
    aliases.add(d + theirs + ".linear_out", p + ours + ".2");
  }
  for (const auto& [theirs, ours] : {std::pair{"norm_q", "img_attn.norm.query_norm"},
                                     {"norm_k", "img_attn.norm.key_norm"},
                                     {"norm_added_q", "txt_attn.norm.query_norm"},
                                     {"norm_added_k", "txt_attn.norm.key_norm"}}) {
    aliases.add(d + "attn." + theirs, p + ours);
  }
}

void add_flux_single(int64_t i, int64_t h, int64_t mlp, Aliases& aliases) {
  const std::string d = fmt::format("single_transformer_blocks.{}.", i), p = fmt::format("single_blocks.{}.", i);
  aliases.add_slices(d + "attn.", {"to_q", "to_k", "to_v"}, p + "linear1", h);
  aliases.add(d + "proj_mlp", p + "linear1", 3 * h, mlp);
  aliases.add(d + "attn.to_qkv_mlp_proj", p + "linear1");
  aliases.add(p + "linear1_qkv", p + "linear1", 0, 3 * h);
  aliases.add(d + "proj_out", p + "linear2");
  aliases.add(d + "attn.to_out", p + "linear2");
  aliases.add(d + "norm.linear", p + "modulation.lin");
  aliases.add(d + "attn.norm_q", p + "norm.query_norm");
  aliases.add(d + "attn.norm_k", p + "norm.key_norm");
}

bool fits_flux(const Names& names) {
  return names.any("double_blocks.0.img_attn.") || names.any("single_blocks.0.linear1.");
}

void add_flux(const Names& names, Aliases& aliases) {
  for (int64_t i = 0, n = names.blocks("double_blocks."); i < n; ++i)
    add_flux_double(i, names.dim(fmt::format("double_blocks.{}.img_attn.qkv", i), 0) / 3, aliases);
  for (int64_t i = 0, n = names.blocks("single_blocks."); i < n; ++i) {
    const std::string linear = fmt::format("single_blocks.{}.linear1", i);
    const int64_t h = names.dim(linear, 1);
    add_flux_single(i, h, names.dim(linear, 0) - 3 * h, aliases);
  }
  aliases.add("x_embedder", "img_in");
  aliases.add("context_embedder", "txt_in");
  aliases.add("controlnet_x_embedder", "pos_embed_input");
  for (const auto& [theirs, ours] :
       {std::pair{"timestep", "time_in"}, {"text", "vector_in"}, {"guidance", "guidance_in"}}) {
    aliases.add(fmt::format("time_text_embed.{}_embedder.linear_1", theirs), fmt::format("{}.in_layer", ours));
    aliases.add(fmt::format("time_text_embed.{}_embedder.linear_2", theirs), fmt::format("{}.out_layer", ours));
  }
  aliases.add("proj_out", "final_layer.linear");
  aliases.add_swapped("norm_out.linear", "final_layer.adaLN_modulation.1");
}

}  // namespace

extern const Family family_flux = {.name = "Flux", .fits = fits_flux, .add = add_flux};

}  // namespace mezzotint::adapter
