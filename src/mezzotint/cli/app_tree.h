#pragma once
#include <string>
#include <vector>

#include "mezzotint/cli/context.h"

/// The program's options and subcommands as data: what completions and man pages are made from.
namespace mezzotint::cli {

struct OptionFacts {
  std::vector<std::string> names;  ///< "-o", "--output"; empty for a positional argument
  std::string positional;          ///< its name, e.g. "INPUT"
  std::string value;               ///< type name of the value, "" for flags
  std::string help;
  bool required = false;
  bool many = false;  ///< takes or may be given several values

  /// Whether its value is a path, so that shells complete file names.
  bool is_path() const;
};

struct CommandFacts {
  std::string name, help;
  std::vector<OptionFacts> options;  ///< positional arguments first
};

/// Options of the program itself.
std::vector<OptionFacts> global_options(const CLI::App& app);
/// Every subcommand that `--help` lists.
std::vector<CommandFacts> commands(const CLI::App& app);

}  // namespace mezzotint::cli
