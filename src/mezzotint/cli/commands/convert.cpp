#include <fmt/format.h>

#include <set>

#include "mezzotint/cli/budget_options.h"
#include "mezzotint/cli/conversion_options.h"
#include "mezzotint/cli/run_conversion.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/paths.h"

namespace mezzotint::cli {
namespace {

struct ConvertArguments {
  std::vector<std::string> inputs;
  ConversionArguments conversion;
  BudgetArguments budget;
  RunArguments run;
};

std::vector<ConversionJob> plan_jobs(const ConvertArguments& arguments) {
  const convert::ConvertOptions wanted = read_options(arguments.conversion);
  const std::string label = output_label(arguments.budget, wanted);
  const auto inputs = convert::expand_inputs({arguments.inputs.begin(), arguments.inputs.end()});
  std::vector<ConversionJob> jobs;
  std::set<std::filesystem::path> outputs;
  for (const auto& input : inputs) {
    auto model = checkpoint::Model::open(input);
    const auto output = convert::choose_output(input, arguments.run.output.output, label, inputs.size() > 1);
    convert::ConvertOptions options = wanted;
    auto budget =
        apply_budget(arguments.budget, arguments.conversion, model, output, arguments.run.output.quiet, options);
    if (!outputs.insert(output).second)
      throw UsageError(fmt::format("Two inputs would be written to {}; convert them apart.", output.string()));
    jobs.push_back(plan_job(std::move(model), output, options, arguments.conversion.threads));
    jobs.back().budget = std::move(budget);
  }
  return jobs;
}

int run_convert(ConvertArguments arguments) {
  arguments.run.threads = arguments.conversion.threads;
  const std::vector<ConversionJob> jobs = plan_jobs(arguments);
  if (!arguments.run.report.empty() && jobs.size() > 1)
    throw UsageError("--report is about one model; convert several apart.");
  return run_jobs(jobs, arguments.run, "converting");
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* sub = app.add_subcommand("convert", "Quantize models, or turn quantized ones back");
  sub->add_option("input", arguments->inputs, "Models: .safetensors files, *.index.json, or folders")
      ->required()
      ->type_name("INPUT");
  add_output_options(*sub, arguments->run.output,
                     "Output file, or folder for outputs with default names. Default: MODEL_FORMAT.safetensors beside "
                     "the input",
                     false);
  add_conversion_options(*sub, arguments->conversion);
  add_budget_options(*sub, arguments->budget);
  add_run_options(*sub, arguments->run);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_convert(*arguments); }; });
}

}  // namespace mezzotint::cli
