#pragma once
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/cli/context.h"
#include "mezzotint/convert/lora_argument.h"
#include "mezzotint/convert/options.h"

/// Adapters on a command line.
namespace mezzotint::cli {

using convert::parse_lora;

/// The options of `convert` and `plan`.
struct MergeArguments {
  std::string lora;
  std::vector<std::string> loras;
  std::optional<double> scale;
  bool dampen = false, no_dampen = false;
};

void add_merge_options(CLI::App& app, MergeArguments& arguments);

/// Puts what is given into `options`.
void apply_merge(const MergeArguments& arguments, convert::ConvertOptions& options);

}  // namespace mezzotint::cli
