#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/nn/layer.h"

/// Modules from checkpoints, quantized layers as they are stored.
namespace mezzotint::nn {

struct LoadOptions {
  at::ScalarType compute = at::kBFloat16;  ///< dtype of everything that is not quantized, and logical dtype of the rest
  std::string prefix;                      ///< in front of the module's names in the file ("model.diffusion_model.")
  /// Quantizes float weights while they are read: a format for what the architecture's preset quantizes, "" = none.
  std::string to;
  int effort = 1;  ///< of that
  /// Patterns (PCRE2, whole layer names without prefix) with the format they get instead, or "" for none; first match.
  std::vector<std::pair<std::string, std::string>> overrides;
};

struct LoadReport {
  struct Entry {
    std::string name;    ///< of the parameter in the module
    std::string stored;  ///< format label or dtype it has now
    uint64_t bytes = 0;
  };
  std::vector<Entry> loaded;
  std::vector<std::string> missing;     ///< parameters that the file does not have; they stay on the meta device
  std::vector<std::string> unexpected;  ///< tensors of the file below the prefix that the module does not have
  uint64_t bytes = 0;                   ///< of all parameters
};

/// Loads every parameter of `module` and its children, one tensor at a time: no more than one is held twice. All
/// modules with parameters must be Layers. Throws Error "shape-mismatch", "broken-layer" (a quantized layer whose
/// tensors do not fit its marker), "bad-dtype"; c10::Error where a module with parameters is no Layer.
LoadReport load(Layer& module, const checkpoint::Model& file, const LoadOptions& options = {});

}  // namespace mezzotint::nn
