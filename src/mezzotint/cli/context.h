#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>
#include <vector>

namespace mezzotint::cli {

/// Exit codes, as documented in docs/cli.md.
enum Exit : int { kDone = 0, kFailed = 1, kUsage = 2, kProblemsFound = 3, kInterrupted = 130 };

/// What a chosen subcommand leaves behind for run(): the work itself, done after parsing succeeded.
struct Context {
  std::function<int()> action;
};

/// The command line makes no sense: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Every file commands/NAME.cpp defines one add_NAME.
using AddCommand = void (*)(CLI::App& app, Context& context);
std::vector<AddCommand> command_table();

/// The whole program's options and subcommands.
void build_app(CLI::App& app, Context& context);

/// Adds an option that may be given several times, with one value each time. (CLI11 would let a vector swallow the
/// positional arguments behind it.)
template <class T>
CLI::Option* add_repeated(CLI::App* app, const char* name, std::vector<T>& values, const char* help) {
  return app->add_option(name, values, help)->type_size(1)->expected(1, 1 << 20)->allow_extra_args(false);
}

}  // namespace mezzotint::cli
