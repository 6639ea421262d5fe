#include "mezzotint/convert/preset.h"

// Boogu-Image.
//
// Kept: convert_to_quant's `boogu` filter: image_index_embedding, ref_image_patch_embedder, time_caption_embed,
// x_embedder, norm_out.linear_1 and .linear_2; and, like musubi-tuner, the modulation of the blocks (norm*.linear).
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"boogu_image"};

constexpr Signature kSignatures[] = {
    {.names = "double_stream_layers.0.img_instruct_attn.processor.img_to_q.weight x_embedder.weight",
     .whose = "Boogu-Image's"},
};

constexpr PresetRule kKeep[] = {
    {R"(image_index_embedding)", "embedding table"},
    {R"(ref_image_patch_embedder|x_embedder)", "first layer"},
    {R"(time_caption_embed\..*)", "time and text embedding"},
    {R"((?:\w+_layers|\w+_refiner)\.\d+\.(?:img_|instruct_)?norm\d\.linear)", "modulation"},
    {R"(norm_out\.linear_[12])", "last layer"},
};

}  // namespace

extern const Preset preset_boogu = {.name = "boogu",
                                    .summary = "Boogu-Image",
                                    .part = Part::diffusion_model,
                                    .aliases = kAliases,
                                    .signatures = kSignatures,
                                    .keep = kKeep};

}  // namespace mezzotint::convert::presets
