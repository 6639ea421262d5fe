#include "mezzotint/convert/preset.h"

// The UNets of Stable Diffusion 1, 2 and XL.
//
// Kept: convolutions (most of the network; ComfyUI cannot load them quantized), the time and size embeddings and their
// projection into every residual block, the last layer. Quantized: the attention and feed-forward layers of the
// transformer blocks with their proj_in and proj_out. No published recipe names layers here; convert_to_quant has none.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"unet", "sd", "sd1", "sd1_5", "sd15", "sd2", "sdxl"};

constexpr Signature kSignatures[] = {
    {.names = "input_blocks.0.0.weight time_embed.0.weight output_blocks.0.0.in_layers.0.weight",
     .whose = "a Stable Diffusion UNet's"},
    {.names = "down_blocks.0.resnets.0.conv1.weight time_embedding.linear_1.weight conv_in.weight",
     .whose = "a Stable Diffusion UNet's, in diffusers' names"},
};

constexpr PresetRule kKeep[] = {
    {R"(time_embed\.\d|time_embedding\.linear_\d)", "time embedding"},
    {R"(label_emb\.\d\.\d|add_embedding\.linear_\d)", "size embedding"},
    {R"((?:input_blocks|output_blocks)\.\d+\.\d+\.emb_layers\.1|middle_block\.\d+\.emb_layers\.1)", "time embedding"},
    {R"((?:down_blocks|up_blocks)\.\d+\.resnets\.\d+\.time_emb_proj|mid_block\.resnets\.\d+\.time_emb_proj)",
     "time embedding"},
    {R"(out\.\d|conv_out)", "last layer"},
};

std::string variant(const Keys& keys) {
  if (keys.any("label_emb.") || keys.any("add_embedding.")) return "SDXL";
  const int64_t context = keys.dim("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 1) +
                          keys.dim("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1);
  return context == 768 ? "SD 1" : context == 1024 ? "SD 2" : "";
}

}  // namespace

extern const Preset preset_sd_unet = {.name = "sd_unet",
                                      .summary = "Stable Diffusion 1, 2 and XL",
                                      .part = Part::diffusion_model,
                                      .aliases = kAliases,
                                      .signatures = kSignatures,
                                      .keep = kKeep,
                                      .variant = variant};

}  // namespace mezzotint::convert::presets
