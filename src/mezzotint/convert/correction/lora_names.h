#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mezzotint/convert/components.h"

namespace mezzotint::convert {

/// What ComfyUI's loader (comfy/lora.py) calls a layer in a LoRA file: "diffusion_model.NAME" for diffusion models,
/// "text_encoders.ENCODER.NAME" or "text_encoders.transformer.NAME" for text encoders ("text_encoder.NAME" for CLIP
/// without a prefix, which it knows as diffusers'). Nothing for parts that it applies no LoRA to. `layer` is the
/// weight's name without ".weight", `components` those of its file.
std::optional<std::string> lora_key(std::span<const Component> components, std::string_view layer);

}  // namespace mezzotint::convert
