#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "mezzotint/adapter/file.h"

namespace mezzotint::nn {

/// An adapter of one layer: what a file has under one target, as tensors. Those that require gradients get them.
struct LayerAdapter {
  std::string algorithm = "lora";  ///< adapter::Algorithm::name
  /// By the roles of adapter/algorithms/NAME.cpp, in the shapes of files: "lora_up" [O, r], "lora_down" [r, I], ...
  /// Of float dtypes; not copied.
  std::map<std::string, at::Tensor> factors;
  at::Tensor magnitude;         ///< DoRA's: [O], [O, 1, ...] or [1, I, 1, ...]; undefined = none
  bool peft_magnitude = false;  ///< it is one of outputs, whatever its shape
  std::optional<double> alpha;
  bool rank_stabilized = false;
  bool constraint_per_row = false;  ///< adapter::ReadOptions
  double factor = 1;                ///< of differences
  int64_t row0 = 0, rows = 0;       ///< of a fused weight; rows = 0: all from row0
  bool swap_halves = false;         ///< adapter::Target
  bool bias = false;                ///< a "diff" of the bias, not of the weight
};

/// One patch of a file, in float32. Its rows are those of the whole weight: a key map says which they are.
LayerAdapter read_adapter(const adapter::AdapterFile& file, const adapter::Patch& patch);

}  // namespace mezzotint::nn
