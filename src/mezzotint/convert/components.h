#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/io/tensor_info.h"

/// What an all-in-one checkpoint consists of.
namespace mezzotint::convert {

/// Tensors under one prefix. Every tensor belongs to exactly one component: the one with the longest prefix that fits.
struct Component {
  std::string name;    ///< "diffusion_model", "vae", "text_encoders.t5xxl", "vocoder", ..., "other"
  std::string prefix;  ///< with its last dot; "" = whatever no other component claims
  size_t tensors = 0;
  uint64_t bytes = 0;
};

/// In the order of their first tensor. A file without known prefixes is one component, named by what its keys look
/// like: "diffusion_model", "vae", "text_encoder" or "adapter" (an unknown architecture counts as a diffusion model).
/// Empty for no tensors.
std::vector<Component> find_components(std::span<const io::TensorInfo> tensors);

/// The component that a known prefix names ("" where there is none, or one that may be a part of anything), and the
/// name without such prefixes: what two files that hold one layer under different prefixes agree in.
struct ComponentName {
  std::string component;
  std::string_view inner;  ///< the end of the name given
};
ComponentName split_component(std::string_view tensor);

/// Index of the component that a tensor belongs to.
size_t component_of(std::span<const Component> components, std::string_view tensor);

/// Indices of the components that `wanted` means: a component's name, "all", or "" for the diffusion model, else the
/// only one. Throws Error "unknown-component" or "no-default-component" with the names that exist.
std::vector<size_t> select_components(std::span<const Component> components, std::string_view wanted);

}  // namespace mezzotint::convert
