#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/lora_options.h"
#include "mezzotint/cli/merge_options.h"
#include "mezzotint/convert/options.h"

namespace mezzotint::cli {

/// The options that decide what a conversion does: `convert` and `plan` have the same ones.
struct ConversionArguments {
  std::optional<std::string> to, fallback, preset, component, rounding, max_memory, max_shard_size, streaming_mode,
      input_scale, optimizer, bf16_compute;
  std::vector<std::string> include, exclude, drop, calibration;
  std::string layer_config, recipe;
  bool fullmatch = false, full_precision_matrix_mult = false, no_bias_correction = false;
  std::optional<uint64_t> seed;
  std::optional<double> top_p;
  std::optional<int64_t> min_k, max_k;
  std::optional<int> effort;
  std::optional<double> smooth;
  MergeArguments merge;
  LoraArguments lora;
  int threads = 0;
};

void add_conversion_options(CLI::App& app, ConversionArguments& arguments);

/// Reads the files they name. Options on the command line win over those of --recipe.
convert::ConvertOptions read_options(const ConversionArguments& arguments);

/// The old names of --streaming-mode and the bound that each of them means.
uint64_t streaming_mode_memory(const std::string& name);

}  // namespace mezzotint::cli
