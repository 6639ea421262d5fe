// HunyuanVideo by the names of its own repository, which musubi-tuner and diffusion-pipe write (ComfyUI:
// comfy/lora.py).
#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_hunyuan_video(const Names& names) {
  return names.any("double_blocks.0.img_attn.") && names.any("txt_in.individual_token_refiner.");
}

void replace_in(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

void add_hunyuan_video(const Names& names, Aliases& aliases) {
  constexpr std::string_view kWeight = ".weight";
  for (const auto& [tensor, shape] : names.all()) {
    if (!tensor.ends_with(kWeight)) continue;
    std::string theirs = tensor;
    replace_in(theirs, "_mod.lin.", "_mod.linear.");
    replace_in(theirs, "_attn.qkv.", "_attn_qkv.");
    replace_in(theirs, "_attn.proj.", "_attn_proj.");
    replace_in(theirs, "mlp.0.", "mlp.fc1.");
    replace_in(theirs, "mlp.2.", "mlp.fc2.");
    replace_in(theirs, ".modulation.lin.", ".modulation.linear.");
    if (theirs != tensor)
      aliases.add(theirs.substr(0, theirs.size() - kWeight.size()), tensor.substr(0, tensor.size() - kWeight.size()));
  }
}

}  // namespace

extern const Family family_hunyuan_video = {
    .name = "HunyuanVideo", .fits = fits_hunyuan_video, .add = add_hunyuan_video};

}  // namespace mezzotint::adapter
