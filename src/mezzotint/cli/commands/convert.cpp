#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/cli/budget_options.h"
#include "mezzotint/cli/conversion_options.h"
#include "mezzotint/cli/interrupt.h"
#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/plan_text.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/report_file.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/journal.h"
#include "mezzotint/convert/methods.h"
#include "mezzotint/convert/paths.h"
#include "mezzotint/convert/report/make_report.h"
#include "mezzotint/convert/rewrite.h"
#include "mezzotint/io/writer.h"

namespace mezzotint::cli {
namespace {

struct ConvertArguments {
  std::vector<std::string> inputs;
  ConversionArguments conversion;
  BudgetArguments budget;
  OutputArguments output;
  std::string report;
  bool dry_run = false, json = false, resume = false;
};

// One model of the call.
struct Job {
  checkpoint::Model model;
  convert::Plan plan;
  std::optional<convert::Budget> budget;
};

std::vector<Job> plan_jobs(const ConvertArguments& arguments) {
  const convert::ConvertOptions wanted = read_options(arguments.conversion);
  const std::string label = output_label(arguments.budget, wanted);
  const auto inputs = convert::expand_inputs({arguments.inputs.begin(), arguments.inputs.end()});
  std::vector<Job> jobs;
  std::set<std::filesystem::path> outputs;
  for (const auto& input : inputs) {
    auto model = checkpoint::Model::open(input);
    const auto output = convert::choose_output(input, arguments.output.output, label, inputs.size() > 1);
    convert::ConvertOptions options = wanted;
    auto budget = apply_budget(arguments.budget, arguments.conversion, model, output, arguments.output.quiet, options);
    auto plan = convert::make_plan(model, output, options, convert::thread_count(arguments.conversion.threads));
    convert::refuse_input_as_output(model.source(), plan.layout);
    if (!outputs.insert(output).second)
      throw UsageError(fmt::format("Two inputs would be written to {}; convert them apart.", output.string()));
    for (const auto& warning : plan.warnings) warn(warning);
    jobs.push_back({std::move(model), std::move(plan), std::move(budget)});
  }
  return jobs;
}

void add_budget(const Job& job, nlohmann::ordered_json& object) {
  if (job.budget) object["budget"] = nlohmann::ordered_json::parse(convert::to_json(*job.budget));
}

int dry_run(const std::vector<Job>& jobs, bool json) {
  auto plans = nlohmann::ordered_json::array();
  for (const Job& job : jobs) {
    if (json)
      add_budget(job, plans.emplace_back(nlohmann::ordered_json::parse(convert::to_json(job.plan))));
    else
      fmt::print("{}{}nothing was written (--dry-run)\n", plan_text(job.plan, false),
                 job.budget ? "\n" + budget_text(*job.budget) : "");
  }
  if (json) fmt::print("{}\n", nlohmann::ordered_json{{"plans", std::move(plans)}}.dump(2));
  return kDone;
}

// Failures of the moment, after which what was written so far is still good.
bool is_passing(std::string_view error) {
  constexpr std::string_view names[] = {"disk-full", "file-too-large", "write-failed", "read-failed"};
  return std::find(std::begin(names), std::end(names), error) != std::end(names);
}

size_t quantized_layers(const convert::Plan& plan) {
  size_t count = 0;
  for (const auto& row : plan.rows) count += row.has_marker ? 1 : 0;
  return count;
}

nlohmann::ordered_json outcome_json(const Job& job, const convert::Outcome& outcome) {
  auto files = nlohmann::ordered_json::array();
  for (const auto& file : job.plan.layout.files) files.push_back({{"path", file.path.string()}, {"bytes", file.bytes}});
  auto warnings = job.plan.warnings;
  warnings.insert(warnings.end(), outcome.warnings.begin(), outcome.warnings.end());
  nlohmann::ordered_json result{{"input", job.plan.input.string()},
                                {"output", job.plan.output.string()},
                                {"files", std::move(files)},
                                {"preset", job.plan.preset},
                                {"quantized_layers", quantized_layers(job.plan)},
                                {"bits_per_weight", job.plan.bits_per_weight},
                                {"bytes_in", outcome.bytes_in},
                                {"bytes_out", job.plan.layout.total_bytes},
                                {"seconds", outcome.seconds},
                                {"rows_resumed", outcome.rows_resumed},
                                {"cancelled", outcome.cancelled},
                                {"notes", job.plan.notes},
                                {"warnings", warnings}};
  add_budget(job, result);
  return result;
}

void print_outcome(const Job& job, const convert::Outcome& outcome) {
  const double seconds = std::max(outcome.seconds, 1e-9);
  fmt::print("{}: {} -> {}, {} quantized layers, {:.2f} bits per weight, {} ({:.0f} MB/s)\n", job.plan.output.string(),
             size_text(outcome.bytes_in), size_text(job.plan.layout.total_bytes), quantized_layers(job.plan),
             job.plan.bits_per_weight, duration_text(outcome.seconds),
             static_cast<double>(outcome.bytes_in) / 1e6 / seconds);
  fmt::print("architecture: {} ({})\n", job.plan.preset, job.plan.preset_reason);
  for (const auto& note : job.plan.notes) fmt::print("note: {}\n", note);
  if (job.budget) fmt::print("{}", budget_text(*job.budget));
}

/// What of a call's models is done.
struct Done {
  uint64_t bytes = 0, bytes_total = 0;
  double seconds = 0, seconds_total = 0;  // estimated
};

double estimated_seconds(const convert::Plan& plan) {
  return convert::total_work(plan) / plan.threads;
}

convert::Outcome execute_one(const Job& job, const ConvertArguments& arguments, ProgressDisplay& progress,
                             const Done& before) {
  const auto partial = io::partial_path(job.plan.layout.files.front().path);
  if (!arguments.resume && std::filesystem::exists(partial))
    warn(fmt::format("{} is left from an earlier run and is written anew (--resume would go on).", partial.string()));
  convert::ExecuteOptions options;
  options.overwrite = arguments.output.force;
  options.resume = arguments.resume;
  options.threads = arguments.conversion.threads;
  options.cancel = &interrupted();
  options.measure = !arguments.report.empty();
  options.progress = [&](const convert::Progress& p) {
    const double share =
        before.seconds_total > 0 ? (before.seconds + p.work_done / job.plan.threads) / before.seconds_total : 1;
    progress.update(before.bytes + p.bytes_done, before.bytes_total, p.current, std::min(share, 1.0));
  };
  return convert::execute(job.plan, job.model, options);
}

void report(const Job& job, const convert::Outcome& outcome, const std::string& path) {
  convert::Report report = convert::make_report(job.plan, outcome, outcome.layers);
  if (job.budget) report.frontier = job.budget->frontier;
  write_report(std::move(report), path);
}

int run_convert(const ConvertArguments& arguments) {
  const std::vector<Job> jobs = plan_jobs(arguments);
  if (!arguments.report.empty() && jobs.size() > 1)
    throw UsageError("--report is about one model; convert several apart.");
  if (arguments.dry_run) return dry_run(jobs, arguments.json);
  const ScopedInterrupt scoped;
  ProgressDisplay progress("converting", arguments.output.quiet);
  Done done;
  for (const Job& job : jobs) {
    done.bytes_total += job.plan.bytes_in;
    done.seconds_total += estimated_seconds(job.plan);
  }
  auto results = nlohmann::ordered_json::array();
  int exit = kDone;
  for (const Job& job : jobs) {
    try {
      const convert::Outcome outcome = execute_one(job, arguments, progress, done);
      progress.clear();
      for (const auto& warning : outcome.warnings) warn(warning);
      if (arguments.json) results.push_back(outcome_json(job, outcome));
      if (outcome.cancelled) {
        say(fmt::format("interrupted; {} is kept. The same command with --resume goes on from there.",
                        io::partial_path(job.plan.layout.files.front().path).string()));
        exit = kInterrupted;
        break;
      }
      if (!arguments.report.empty()) report(job, outcome, arguments.report);
      if (!arguments.json && !arguments.output.quiet) print_outcome(job, outcome);
    } catch (const Error& error) {  // the other models of the call can still be done
      progress.clear();
      if (is_passing(error.name()) && std::filesystem::exists(convert::Journal::path_for(job.plan.output)))
        say(fmt::format("{} is kept; once the cause is mended, the same command with --resume goes on from there.",
                        io::partial_path(job.plan.layout.files.front().path).string()));
      if (jobs.size() == 1) throw;
      say(fmt::format("error: {} [{}]", error.what(), error.name()));
      exit = kFailed;
    }
    done.bytes += job.plan.bytes_in;
    done.seconds += estimated_seconds(job.plan);
  }
  if (arguments.json) fmt::print("{}\n", nlohmann::ordered_json{{"results", std::move(results)}}.dump(2));
  return exit;
}

}  // namespace

void add_convert(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App* sub = app.add_subcommand("convert", "Quantize models, or turn quantized ones back");
  sub->add_option("input", arguments->inputs, "Models: .safetensors files, *.index.json, or folders")
      ->required()
      ->type_name("INPUT");
  add_output_options(*sub, arguments->output,
                     "Output file, or folder for outputs with default names. Default: MODEL_FORMAT.safetensors beside "
                     "the input",
                     false);
  add_conversion_options(*sub, arguments->conversion);
  add_budget_options(*sub, arguments->budget);
  sub->add_flag("-n,--dry-run", arguments->dry_run, "Only say what would be done");
  sub->add_option("--report", arguments->report,
                  "Write a page with sizes, the error of every layer and what would mend it, and its numbers as .json "
                  "beside it")
      ->type_name("FILE.html");
  sub->add_flag("--resume", arguments->resume, "Go on where an interrupted run of the same command stopped");
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_convert(*arguments); }; });
}

}  // namespace mezzotint::cli
