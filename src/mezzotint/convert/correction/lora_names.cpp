#include "mezzotint/convert/correction/lora_names.h"

namespace mezzotint::convert {

std::optional<std::string> lora_key(std::span<const Component> components, std::string_view layer) {
  if (components.empty()) return std::nullopt;
  const Component& component = components[component_of(components, layer)];
  const std::string inner(layer.substr(component.prefix.size()));
  if (component.name == "diffusion_model") return "diffusion_model." + inner;
  if (component.name.starts_with("text_encoders.")) return std::string(layer);
  if (component.name != "text_encoder" || !component.prefix.empty()) return std::nullopt;
  return (inner.starts_with("text_model.") ? "text_encoder." : "text_encoders.transformer.") + inner;
}

}  // namespace mezzotint::convert
