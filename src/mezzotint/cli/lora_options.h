#pragma once
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/cli/context.h"
#include "mezzotint/convert/options.h"

/// Adapters that a conversion prepares its output for, without merging them.
namespace mezzotint::cli {

/// The options of `convert` and `plan`.
struct LoraArguments {
  enum class Kind : uint8_t { file, strength };
  std::vector<std::pair<Kind, std::string>> scale;  ///< as they came: a strength belongs to the file in front of it
  std::vector<std::string> calibration;
  bool strict = false;
};

void add_lora_options(CLI::App& app, LoraArguments& arguments);

/// Puts what is given into `options`, in which the adapters to merge are already.
void apply_loras(const LoraArguments& arguments, convert::ConvertOptions& options);

}  // namespace mezzotint::cli
