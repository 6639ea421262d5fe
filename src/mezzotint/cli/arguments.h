#pragma once
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/cli/context.h"

namespace mezzotint::cli {

/// '_' becomes '-' in the names of long options ("--max_memory=4G" is "--max-memory=4G"); values stay. What follows
/// "--" is left alone.
void normalise_option_names(std::vector<std::string>& arguments);

/// The complaint about the first option that the chosen subcommand does not have, or nothing. Options of
/// convert_to_quant are answered with ours or with the reason why it is not needed; others with the nearest name.
std::optional<std::string> find_unknown_option(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace mezzotint::cli
