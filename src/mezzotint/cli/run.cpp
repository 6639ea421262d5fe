#include "mezzotint/cli/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "mezzotint/base/error.h"
#include "mezzotint/base/version.h"
#include "mezzotint/cli/arguments.h"
#include "mezzotint/cli/context.h"
#include "mezzotint/cli/interrupt.h"

namespace mezzotint::cli {
namespace {

int complain(const std::string& message, int code) {
  fmt::print(stderr, "mezzotint: error: {}\n", message);
  return code;
}

// Errors that say that the command line itself makes no sense, not that a file is bad.
bool is_usage(std::string_view name) {
  constexpr std::string_view names[] = {"unknown-format", "bad-option",        "unknown-preset",  "bad-regex",
                                        "unknown-isa",    "unknown-component", "bad-replacement", "output-not-folder",
                                        "bad-field",      "reserved-metadata", "nothing-to-edit", "unknown-recipe"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

int parse_and_run(int argc, char** argv) {
  CLI::App app;
  Context context;
  build_app(app, context);
  std::vector<std::string> arguments(argv + 1, argv + argc);
  normalise_option_names(arguments);
  if (const auto problem = find_unknown_option(app, arguments)) return complain(*problem, kUsage);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    fmt::print("{}", chosen.empty() ? app.help() : chosen.front()->help(app.get_name()));
    return kDone;
  } catch (const CLI::CallForVersion&) {
    fmt::print("mezzotint {}\n", kVersion);
    return kDone;
  } catch (const CLI::ParseError& error) {
    const auto chosen = app.get_subcommands();
    return complain(fmt::format("{}\nTry `mezzotint {}--help`.", error.what(),
                                chosen.empty() ? "" : chosen.front()->get_name() + " "),
                    kUsage);
  }
  return context.action();
}

}  // namespace

void build_app(CLI::App& app, Context& context) {
  app.name("mezzotint");
  app.description("Quantizes diffusion and transformer checkpoints into files that ComfyUI loads.");
  app.set_help_flag("-h,--help", "Show this help and exit");
  app.set_version_flag("--version", std::string(kVersion), "Show the version and exit");
  app.require_subcommand(1);
  app.footer(
      "mezzotint COMMAND --help explains a command. Sizes are written 512M, 9.5GiB or 1GB.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 problems found by verify, 130 interrupted.");
  for (const AddCommand add : command_table()) add(app, context);
}

int run(int argc, char** argv) {
  try {
    const int code = parse_and_run(argc, argv);
    if (std::fflush(stdout) != 0) return complain("standard output cannot be written.", kFailed);
    return code;
  } catch (const UsageError& error) {
    return complain(error.what(), kUsage);
  } catch (const Error& error) {
    if (error.name() == "cancelled" && interrupted().load()) return complain(error.what(), kInterrupted);
    return complain(fmt::format("{} [{}]", error.what(), error.name()), is_usage(error.name()) ? kUsage : kFailed);
  } catch (const std::bad_alloc&) {
    return complain("out of memory. Lower --max-memory or --threads.", kFailed);
  } catch (const std::exception& error) {
    return complain(error.what(), kFailed);
  }
}

}  // namespace mezzotint::cli
