// The UNets of Stable Diffusion 1, 2 and XL by diffusers' names (ComfyUI: comfy/utils.py, unet_to_diffusers). What the
// blocks hold is read off the model.
#include <fmt/format.h>

#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_unet(const Names& names) {
  return names.any("input_blocks.0.0.") && names.any("middle_block.0.in_layers.");
}

void add_unet_resnet(const std::string& theirs, const std::string& ours, Aliases& aliases) {
  aliases.add_pairs(theirs, ours,
                    {{"conv1", "in_layers.2"},
                     {"time_emb_proj", "emb_layers.1"},
                     {"conv2", "out_layers.3"},
                     {"conv_shortcut", "skip_connection"},
                     {"norm1", "in_layers.0"},
                     {"norm2", "out_layers.0"}});
}

void add_unet_down(const Names& names, Aliases& aliases) {
  for (int64_t n = 1, block = 0, i = 0; names.any(fmt::format("input_blocks.{}.", n)); ++n) {
    const std::string ours = fmt::format("input_blocks.{}.", n), theirs = fmt::format("down_blocks.{}.", block);
    if (names.any(ours + "0.op.")) {
      aliases.add(theirs + "downsamplers.0.conv", ours + "0.op");
      ++block;
      i = 0;
      continue;
    }
    add_unet_resnet(fmt::format("{}resnets.{}.", theirs, i), ours + "0.", aliases);
    aliases.add_tree(fmt::format("{}attentions.{}.", theirs, i), ours + "1.");
    ++i;
  }
}

void add_unet_up(const Names& names, Aliases& aliases) {
  for (int64_t n = 0, block = 0, i = 0; names.any(fmt::format("output_blocks.{}.", n)); ++n) {
    const std::string ours = fmt::format("output_blocks.{}.", n), theirs = fmt::format("up_blocks.{}.", block);
    add_unet_resnet(fmt::format("{}resnets.{}.", theirs, i), ours + "0.", aliases);
    if (names.any(ours + "1.transformer_blocks.") || names.any(ours + "1.proj_in."))
      aliases.add_tree(fmt::format("{}attentions.{}.", theirs, i), ours + "1.");
    ++i;
    for (const char* upsampler : {"1.conv", "2.conv"}) {
      if (!names.any(ours + upsampler + ".")) continue;
      aliases.add(theirs + "upsamplers.0.conv", ours + upsampler);
      ++block;
      i = 0;
    }
  }
}

void add_unet(const Names& names, Aliases& aliases) {
  add_unet_down(names, aliases);
  add_unet_up(names, aliases);
  add_unet_resnet("mid_block.resnets.0.", "middle_block.0.", aliases);
  aliases.add_tree("mid_block.attentions.0.", "middle_block.1.");
  add_unet_resnet("mid_block.resnets.1.", "middle_block.2.", aliases);
  aliases.add_pairs("", "",
                    {{"conv_in", "input_blocks.0.0"},
                     {"conv_norm_out", "out.0"},
                     {"conv_out", "out.2"},
                     {"time_embedding.linear_1", "time_embed.0"},
                     {"time_embedding.linear_2", "time_embed.2"},
                     {"class_embedding.linear_1", "label_emb.0.0"},
                     {"class_embedding.linear_2", "label_emb.0.2"},
                     {"add_embedding.linear_1", "label_emb.0.0"},
                     {"add_embedding.linear_2", "label_emb.0.2"}});
}

}  // namespace

extern const Family family_unet = {.name = "Stable Diffusion UNet", .fits = fits_unet, .add = add_unet};

}  // namespace mezzotint::adapter
