#pragma once
#include <string>

#include "mezzotint/cli/context.h"

namespace mezzotint::cli {

/// Options that commands which write a file share.
struct OutputArguments {
  std::string output;
  bool force = false;
  bool quiet = false;
};

inline void add_output_options(CLI::App& app, OutputArguments& arguments, const char* help, bool required) {
  app.add_option("-o,--output", arguments.output, help)->type_name("PATH")->required(required);
  app.add_flag("-f,--force", arguments.force, "Overwrite an existing output");
  app.add_flag("-q,--quiet", arguments.quiet, "No progress and no summary");
}

inline void add_threads_option(CLI::App& app, int& threads) {
  app.add_option("-j,--threads", threads, "Threads. Default: all cores")
      ->type_name("N")
      ->check(CLI::Range(1, 4096).description(""));
}

inline void add_json_option(CLI::App& app, bool& json) {
  app.add_flag("--json", json, "Print JSON on stdout (docs/cli.md describes it)");
}

}  // namespace mezzotint::cli
