#pragma once
#include <c10/core/ScalarType.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/tensor/quantized_tensor.h"

/// Modules from checkpoints, quantized layers as they are stored.
namespace mezzotint::nn {

struct LoadOptions {
  at::ScalarType compute = at::kBFloat16;  ///< dtype of everything that is not quantized, and logical dtype of the rest
  /// In front of the module's names in the file ("model.diffusion_model."); not given: found by the names.
  std::optional<std::string> prefix;
  /// Quantizes float weights while they are read: a format for what the architecture's preset quantizes, "" = none.
  std::string to;
  int effort = 1;  ///< of that
  /// Patterns (PCRE2, whole layer names without prefix) with the format they get instead, or "" for none; first match.
  std::vector<std::pair<std::string, std::string>> overrides;
  /// Tensors that are taken as they are stored become views of the mapped file: they cost memory when they are used,
  /// and none that other programs could not have. In-place operations change a copy, never the file. It must not be
  /// cut short meanwhile.
  bool mmap = false;
  /// Gives values to modules that cannot hold codes (neither Layers nor layers of torch), instead of an error.
  bool dequantize = false;
  /// What products of fp8 layers without input_scale do with their inputs; not in the file.
  tensor::UnscaledInputs unscaled_inputs = tensor::UnscaledInputs::per_row;
};

struct LoadReport {
  struct Entry {
    std::string name;    ///< of the parameter in the module
    std::string stored;  ///< format label or dtype it has now
    uint64_t bytes = 0;
  };
  std::vector<Entry> loaded;
  std::vector<std::string> missing;     ///< parameters that the file does not have; they stay as they were
  std::vector<std::string> unexpected;  ///< tensors of the file below the prefix that the module does not have
  std::string prefix;                   ///< that was given or found
  uint64_t bytes = 0;                   ///< of all that was loaded
};

/// Loads every parameter and buffer of `module` and its children, one tensor at a time: no more than one is held twice.
/// Buffers that the file does not have are not missing.
///
/// Any module takes plain tensors. Quantized ones, and any in the place of a parameter on the meta device, go into
/// nn::Layers and into torch::nn's linear, convolution, embedding and norm layers, whose handles are exchanged: take
/// copies of handles (for an optimizer, say) after loading.
///
/// Throws Error "shape-mismatch", "broken-layer" (a quantized layer whose tensors do not fit its marker), "bad-dtype",
/// "ambiguous-prefix", "cannot-hold" (a parameter of another module that a tensor cannot be put in the place of).
LoadReport load(torch::nn::Module& module, const checkpoint::Model& file, const LoadOptions& options = {});

/// Puts the parameters of torch::nn's linear, convolution, embedding and norm layers on the meta device, to be loaded:
/// torch gives each of them memory in float32 when it makes it. For a big model, after making each part of it.
void release(torch::nn::Module& module);

}  // namespace mezzotint::nn
