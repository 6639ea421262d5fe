#pragma once
#include <functional>
#include <vector>

#include "mezzotint/checkpoint/model.h"

namespace mezzotint::checkpoint {

struct VerifyOptions {
  bool comfyui =
      true;           ///< a format that ComfyUI cannot load is an error, else a warning: one such layer aborts its load
  bool codes = true;  ///< also read and decode every code (one pass over the file) and look for non-finite values
  int threads = 0;    ///< 0 = all cores
  std::function<void(uint64_t bytes_done, uint64_t bytes_total)> progress;  ///< may be empty; called from one thread
};

/// Every consistency check of a quantized file: orphan or missing scales, wrong dtypes or shapes, marker and bytes
/// disagree, the two marker forms disagree, non-finite or zero scales, formats that the runtime does not know. One
/// finding each; no finding of severity `error` = the file is sound.
std::vector<Finding> verify(const Model& model, const VerifyOptions& options = {});

}  // namespace mezzotint::checkpoint
