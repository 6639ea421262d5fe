#include "mezzotint/adapter/rewrites.h"

#include <algorithm>
#include <utility>

namespace mezzotint::adapter {
namespace {

using Replacement = std::pair<std::string_view, std::string_view>;

void replace_all(std::string& text, const Replacement& replacement) {
  const auto& [from, to] = replacement;
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

constexpr Replacement kBflControl[] = {{".lora_B.bias", ".diff_b"}, {"_norm.scale", "_norm.set_weight"}};
constexpr Replacement kUso[] = {
    {".down.weight", ".lora_down.weight"}, {".up.weight", ".lora_up.weight"},   {".qkv_lora2.", ".txt_attn.qkv."},
    {".qkv_lora1.", ".img_attn.qkv."},     {".proj_lora1.", ".img_attn.proj."}, {".proj_lora2.", ".txt_attn.proj."},
    {".qkv_lora.", ".linear1_qkv."},       {".proj_lora.", ".linear2."},        {".processor.", "."},
};

}  // namespace

Rewrite rewrite_keys(std::vector<std::string> keys) {
  const auto has = [&](std::string_view key) { return std::ranges::find(keys, key) != keys.end(); };
  Rewrite result;
  if (has("img_in.lora_A.weight") && has("single_blocks.0.norm.key_norm.scale")) {
    result.note = "a control LoRA of Black Forest Labs: norms are replaced, and the first layer is enlarged";
    result.enlarged = "diffusion_model.img_in";
    for (std::string& key : keys) {
      for (const Replacement& replacement : kBflControl) replace_all(key, replacement);
      key.insert(0, "diffusion_model.");
    }
  } else if (has("lora_unet__blocks_0_cross_attn_k.lora_down.weight")) {
    result.note = "a Wan Fun LoRA: lora_unet__ is read as lora_unet_";
    for (std::string& key : keys)
      if (key.starts_with("lora_unet__")) key.erase(10, 1);
  } else if (has("single_blocks.37.processor.qkv_lora.up.weight") &&
             has("double_blocks.18.processor.qkv_lora2.up.weight")) {
    result.note = "a USO LoRA: its processors are read as the layers they sit on";
    for (std::string& key : keys) {
      for (const Replacement& replacement : kUso) replace_all(key, replacement);
      key.insert(0, "diffusion_model.");
    }
  }
  result.keys = std::move(keys);
  return result;
}

}  // namespace mezzotint::adapter
