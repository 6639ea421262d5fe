#pragma once
#include <torch/nn/module.h>

#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/nn/recorder.h"

/// Static scales of activations for a module that is loaded.
namespace mezzotint::nn {

struct InputScaleReport {
  std::vector<std::string> set;      ///< layers that have a new input_scale
  std::vector<std::string> without;  ///< quantized layers without statistics, or that saw nothing but zeros
};

/// Gives every quantized layer of a module whose format's runtime uses one a static input_scale; nn::save() writes it.
/// `rule` as for `convert --input-scale`: "amax", "p99.9", or "none", which takes them away. Smoothed layers are left
/// alone: what was measured lies in front of the smoothing. Throws Error "bad-option", "calibration-mismatch",
/// "cannot-hold".
InputScaleReport set_input_scales(torch::nn::Module& module, const convert::Calibration& calibration,
                                  std::string_view rule = "amax", const std::string& prefix = "");
InputScaleReport set_input_scales(torch::nn::Module& module, const CalibrationRecorder& recorder,
                                  std::string_view rule = "amax");

}  // namespace mezzotint::nn
