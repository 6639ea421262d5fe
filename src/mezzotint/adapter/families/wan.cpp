// Wan 2.1 and 2.2 by diffusers' names (diffusers: scripts/convert_wan_to_diffusers.py). ComfyUI does not know these.
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_wan(const Names& names) {
  return names.any("blocks.0.self_attn.q.") && names.any("head.head.");
}

void add_wan(const Names& names, Aliases& aliases) {
  for (int64_t i = 0, n = names.blocks("blocks."); i < n; ++i) {
    const std::string block = fmt::format("blocks.{}.", i);
    for (const auto& [theirs, ours] : {std::pair{"attn1.", "self_attn."}, {"attn2.", "cross_attn."}}) {
      aliases.add_pairs(block + theirs, block + ours,
                        {{"to_q", "q"},
                         {"to_k", "k"},
                         {"to_v", "v"},
                         {"to_out.0", "o"},
                         {"norm_q", "norm_q"},
                         {"norm_k", "norm_k"},
                         {"add_k_proj", "k_img"},
                         {"add_v_proj", "v_img"},
                         {"norm_added_k", "norm_k_img"}});
    }
    aliases.add_pairs(block, block, {{"ffn.net.0.proj", "ffn.0"}, {"ffn.net.2", "ffn.2"}, {"norm2", "norm3"}});
  }
  aliases.add_pairs("condition_embedder.", "",
                    {{"time_embedder.linear_1", "time_embedding.0"},
                     {"time_embedder.linear_2", "time_embedding.2"},
                     {"text_embedder.linear_1", "text_embedding.0"},
                     {"text_embedder.linear_2", "text_embedding.2"},
                     {"time_proj", "time_projection.1"}});
  aliases.add("proj_out", "head.head");
}

}  // namespace

extern const Family family_wan = {.name = "Wan", .fits = fits_wan, .add = add_wan};

}  // namespace mezzotint::adapter
