#include "mezzotint/convert/preset.h"

// LoRA files. Kept: convert_to_quant's fork has a `lora` filter, alpha and scale; neither is a ".weight", so the
// structural rules keep both, and low ranks stay because they are narrow.
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"adapter", "lycoris"};

bool adapter(const Keys& keys) {
  return keys.ends_with(".lora_A.weight") || keys.ends_with(".lora_down.weight") || keys.ends_with(".lokr_w1") ||
         keys.ends_with(".hada_w1_a");
}

constexpr Signature kSignatures[] = {
    {.names = "",
     .whose = "its *.lora_A, *.lora_down, *.lokr_w1 or *.hada_w1_a tensors are an adapter's",
     .check = adapter},
};

constexpr PresetRule kKeep[] = {
    {R"(.*\.(?:alpha|dora_scale|scale))", "strength of an adapter"},
};

}  // namespace

extern const Preset preset_lora = {.name = "lora",
                                   .summary = "LoRA and other adapters",
                                   .part = Part::adapter,
                                   .aliases = kAliases,
                                   .signatures = kSignatures,
                                   .keep = kKeep};

}  // namespace mezzotint::convert::presets
