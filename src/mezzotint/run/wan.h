#pragma once
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/convert/options.h"
#include "mezzotint/models/wan/sampler.h"

namespace mezzotint::run {

struct WanArguments {
  std::string model, inputs, output;
  std::string dtype = "bf16";
  std::optional<int> steps;  ///< none = one forward
  models::wan::SampleOptions sampling;
  std::string to;
  std::string calibration;                ///< file for statistics of the layers' inputs, "" = none
  std::vector<convert::MergeLora> loras;  ///< beside the layers (nn/bypass), in this order
  int64_t heads = 0;
  bool comfyui_inputs = false;  ///< tensor::UnscaledInputs::as_comfyui
  bool overwrite = false, quiet = false;
};

void wan(const WanArguments& arguments);

}  // namespace mezzotint::run
