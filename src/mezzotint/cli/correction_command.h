#pragma once
#include <string>
#include <vector>

#include "mezzotint/cli/model_options.h"
#include "mezzotint/convert/correction/correction.h"

/// `correct`, which is `extract --residual`, too.
namespace mezzotint::cli {

struct CorrectArguments {
  std::string original, quantized, dtype = "fp16", max_memory;
  OutputArguments output;
  std::vector<std::string> calibration;
  int64_t rank = convert::CorrectionOptions().rank;
  size_t top = 10;
  int threads = 0;
  bool json = false;
};

/// --dtype of a LoRA: fp16, bf16 or fp32.
DType lora_dtype(const std::string& text);

/// "12.3456" for 0.123456.
std::string percent(double value);

int run_correct(const CorrectArguments& arguments);

}  // namespace mezzotint::cli
