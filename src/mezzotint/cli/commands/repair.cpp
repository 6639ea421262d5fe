#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/interrupt.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/convert/edit.h"

namespace mezzotint::cli {
namespace {

struct RepairArguments {
  std::string input;
  OutputArguments output;
  bool json = false;
};

int run_repair(const RepairArguments& arguments) {
  const auto model = checkpoint::Model::open(arguments.input);
  const ScopedInterrupt scoped;
  std::vector<std::string> repairs;
  {
    ProgressDisplay progress("repairing", arguments.output.quiet);
    convert::ExecuteOptions options;
    options.overwrite = arguments.output.force;
    options.cancel = &interrupted();
    options.progress = [&](const convert::Progress& p) { progress.update(p.bytes_done, p.bytes_total, p.current); };
    repairs = convert::repair(model, arguments.output.output, options);
  }
  if (arguments.json) {
    const nlohmann::ordered_json root{{"input", arguments.input},
                                      {"output", arguments.output.output},
                                      {"written", !repairs.empty()},
                                      {"repairs", repairs}};
    fmt::print("{}\n", root.dump(2));
  } else if (!arguments.output.quiet) {
    for (const auto& line : repairs) fmt::print("{}\n", line);
    if (repairs.empty())
      fmt::print("{}: nothing to repair; no file was written\n", arguments.input);
    else
      fmt::print("{}: written with {} repairs\n", arguments.output.output, repairs.size());
  }
  return kDone;
}

}  // namespace

void add_repair(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<RepairArguments>();
  CLI::App* sub = app.add_subcommand(
      "repair", "Write a mended copy: markers in both forms, scales as loaders want them, codes untouched");
  sub->add_option("input", arguments->input, "File, index or folder")->required()->type_name("INPUT");
  add_output_options(*sub, arguments->output, "Output file", true);
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_repair(*arguments); }; });
}

}  // namespace mezzotint::cli
