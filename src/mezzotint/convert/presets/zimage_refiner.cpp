#include "mezzotint/convert/preset.h"

// Z-Image with both refiners kept: convert_to_quant's `zimage_refiner` filter (context_refiner, noise_refiner,
// cap_embedder.0, pad tokens and norms). The first and last layers and the modulation stay by the generic rules, which
// that filter leaves to quantization. Chosen by name only.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"z_image_refiner"};

constexpr PresetRule kKeep[] = {
    {R"((?:context|noise)_refiner\.\d+\..*)", "refiner"},
    {R"(cap_embedder\.\d)", "text input"},
};

}  // namespace

extern const Preset preset_zimage_refiner = {.name = "zimage_refiner",
                                             .summary = "Z-Image, refiner blocks kept too",
                                             .part = Part::diffusion_model,
                                             .aliases = kAliases,
                                             .signatures = {},
                                             .keep = kKeep};

}  // namespace mezzotint::convert::presets
