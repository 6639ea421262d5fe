#include "mezzotint/convert/preset.h"

// Autoencoders: mostly convolutions, which ComfyUI cannot load quantized, and small. Everything stays.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"autoencoder", "first_stage_model"};

constexpr Signature kSignatures[] = {
    {.names = "decoder.conv_in.weight encoder.conv_in.weight", .whose = "an autoencoder's", .confidence = 80},
    {.names = "decoder.conv1.weight encoder.conv1.weight", .whose = "Wan's autoencoder's", .confidence = 80},
    {.names = "decoder.conv_in.conv.weight encoder.conv_in.conv.weight",
     .whose = "a video autoencoder's",
     .confidence = 80},
};

constexpr PresetRule kKeep[] = {
    {R"(.*)", "autoencoder"},
};

}  // namespace

extern const Preset preset_vae = {.name = "vae",
                                  .summary = "Variational autoencoders (image, video, audio)",
                                  .part = Part::vae,
                                  .aliases = kAliases,
                                  .signatures = kSignatures,
                                  .keep = kKeep};

}  // namespace mezzotint::convert::presets
