#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/recipe.h"

namespace mezzotint::convert {

/// All weights of a file that are stored in one way.
struct StorageShare {
  std::string label;                        ///< format label, or dtype of plain tensors
  const formats::Format* format = nullptr;  ///< null for plain tensors
  std::string foreign;                      ///< marker's format name, where it is not compiled in
  size_t tensors = 0;                       ///< weights (their parameters are not counted apart)
  uint64_t elements = 0;
  uint64_t bytes = 0;  ///< with parameters and markers
};

struct InspectedComponent {
  Component component;
  Detection detection;
};

/// What a file is, from its header (and the small marker tensors) alone.
struct Inspection {
  std::vector<InspectedComponent> components;
  std::vector<StorageShare> shares;  ///< largest first
  uint64_t file_bytes = 0;
  uint64_t elements = 0;  ///< of all weights and plain tensors
  /// Stored bits of all weights with two or more dimensions, with their parameters, by their elements; 0 without any.
  double bits_per_weight = 0;
  std::vector<std::string> dialects;  ///< every form of marking that occurs, e.g. "comfy_quant"
  bool comfyui_loads = false;         ///< every quantized layer is in a format that ComfyUI's own ops load
  std::optional<Origin> origin;       ///< how it was made, if the header says so
};

Inspection inspect(const checkpoint::Model& model);

}  // namespace mezzotint::convert
