// Lumina 2 and Z-Image by diffusers' names (ComfyUI: comfy/utils.py, z_image_to_diffusers).
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_lumina2(const Names& names) {
  return names.any("layers.0.attention.qkv.") && names.any("noise_refiner.0.");
}

void add_lumina2(const Names& names, Aliases& aliases) {
  for (const char* stack : {"layers", "context_refiner", "noise_refiner"}) {
    for (int64_t i = 0, n = names.blocks(fmt::format("{}.", stack)); i < n; ++i) {
      const std::string block = fmt::format("{}.{}.attention.", stack, i);
      const int64_t h = names.dim(block + "out", 0), all = names.dim(block + "qkv", 0);
      const int64_t kv = (all - h) / 2;  // fewer heads for keys and values in Lumina 2
      aliases.add(block + "to_q", block + "qkv", 0, h);
      aliases.add(block + "to_k", block + "qkv", h, kv);
      aliases.add(block + "to_v", block + "qkv", h + kv, kv);
      aliases.add_pairs(block, block, {{"norm_q", "q_norm"}, {"norm_k", "k_norm"}, {"to_out.0", "out"}});
    }
  }
  aliases.add_tree("all_final_layer.2-1.", "final_layer.");
  aliases.add("all_x_embedder.2-1", "x_embedder");
}

}  // namespace

extern const Family family_lumina2 = {.name = "Lumina 2, Z-Image", .fits = fits_lumina2, .add = add_lumina2};

}  // namespace mezzotint::adapter
