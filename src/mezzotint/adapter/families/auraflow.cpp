// AuraFlow by diffusers' names (ComfyUI: comfy/utils.py, auraflow_to_diffusers).
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_auraflow(const Names& names) {
  return names.any("double_layers.0.attn.w1q.") || names.any("single_layers.0.attn.w1q.");
}

void add_auraflow(const Names& names, Aliases& aliases) {
  for (int64_t i = 0, n = names.blocks("double_layers."); i < n; ++i) {
    aliases.add_pairs(fmt::format("joint_transformer_blocks.{}.", i), fmt::format("double_layers.{}.", i),
                      {{"attn.to_q", "attn.w2q"},
                       {"attn.to_k", "attn.w2k"},
                       {"attn.to_v", "attn.w2v"},
                       {"attn.to_out.0", "attn.w2o"},
                       {"attn.add_q_proj", "attn.w1q"},
                       {"attn.add_k_proj", "attn.w1k"},
                       {"attn.add_v_proj", "attn.w1v"},
                       {"attn.to_add_out", "attn.w1o"},
                       {"ff.linear_1", "mlpX.c_fc1"},
                       {"ff.linear_2", "mlpX.c_fc2"},
                       {"ff.out_projection", "mlpX.c_proj"},
                       {"ff_context.linear_1", "mlpC.c_fc1"},
                       {"ff_context.linear_2", "mlpC.c_fc2"},
                       {"ff_context.out_projection", "mlpC.c_proj"},
                       {"norm1.linear", "modX.1"},
                       {"norm1_context.linear", "modC.1"}});
  }
  for (int64_t i = 0, n = names.blocks("single_layers."); i < n; ++i) {
    aliases.add_pairs(fmt::format("single_transformer_blocks.{}.", i), fmt::format("single_layers.{}.", i),
                      {{"attn.to_q", "attn.w1q"},
                       {"attn.to_k", "attn.w1k"},
                       {"attn.to_v", "attn.w1v"},
                       {"attn.to_out.0", "attn.w1o"},
                       {"norm1.linear", "modCX.1"},
                       {"ff.linear_1", "mlp.c_fc1"},
                       {"ff.linear_2", "mlp.c_fc2"},
                       {"ff.out_projection", "mlp.c_proj"}});
  }
  aliases.add_pairs("", "",
                    {{"time_step_proj.linear_1", "t_embedder.mlp.0"},
                     {"time_step_proj.linear_2", "t_embedder.mlp.2"},
                     {"context_embedder", "cond_seq_linear"},
                     {"pos_embed.proj", "init_x_linear"},
                     {"proj_out", "final_linear"}});
  aliases.add_swapped("norm_out.linear", "modF.1");
}

}  // namespace

extern const Family family_auraflow = {.name = "AuraFlow", .fits = fits_auraflow, .add = add_auraflow};

}  // namespace mezzotint::adapter
