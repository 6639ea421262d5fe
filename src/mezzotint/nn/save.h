#pragma once
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"

/// Modules to checkpoints that our and ComfyUI's loaders read.
namespace mezzotint::nn {

struct SaveOptions {
  /// The file that the module was loaded from. What the module has unchanged is written as it is stored there, to the
  /// byte: dtypes that loading converted, markers of older dialects, metadata.
  const checkpoint::Model* source = nullptr;
  std::optional<std::string> prefix;  ///< in front of the module's names; not given: as load() finds it in `source`
  bool rest = true;                   ///< also copies what `source` has and the module does not (other components)
  io::Metadata metadata;              ///< further entries of the header, which win over the source's
  uint64_t max_shard_bytes = 0;       ///< 0 = one file
  bool overwrite = false;             ///< replaces an existing file
};

struct SaveReport {
  std::vector<std::string> changed;   ///< tensors and layers that are not the source's (all of them without a source)
  std::vector<std::string> left_out;  ///< tensors of the source that are not in the file, with `rest` off
  uint64_t bytes = 0;                 ///< of the tensors
};

/// Writes every parameter of the module, and its buffers (with a source: those that it has). Quantized weights are
/// written as they are held, with scales, input_scale, pre_quant_scale and markers in both forms; others in the dtype
/// that they have now. If no quantized layer changed, all are in the dialect of the source, otherwise in today's, like
/// output of the converter. The file appears whole or not at all; at most one tensor is held besides the module.
///
/// Throws the Errors of io::Writer ("output-exists", ...), "output-is-input", "not-loaded" (a parameter on the meta
/// device that the source does not have), "bad-name" (a quantized parameter whose name does not end in ".weight").
SaveReport save(const torch::nn::Module& module, const std::filesystem::path& path, const SaveOptions& options = {});

}  // namespace mezzotint::nn
