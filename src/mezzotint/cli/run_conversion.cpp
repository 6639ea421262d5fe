#include "mezzotint/cli/run_conversion.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/cli/budget_options.h"
#include "mezzotint/cli/interrupt.h"
#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/plan_text.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/report_file.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/journal.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/methods.h"
#include "mezzotint/convert/report/make_report.h"
#include "mezzotint/convert/rewrite.h"
#include "mezzotint/io/writer.h"

namespace mezzotint::cli {
namespace {

void add_budget(const ConversionJob& job, nlohmann::ordered_json& object) {
  if (job.budget) object["budget"] = nlohmann::ordered_json::parse(convert::to_json(*job.budget));
}

int dry_run(const std::vector<ConversionJob>& jobs, bool json) {
  auto plans = nlohmann::ordered_json::array();
  for (const ConversionJob& job : jobs) {
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

nlohmann::ordered_json outcome_json(const ConversionJob& job, const convert::Outcome& outcome) {
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

void print_outcome(const ConversionJob& job, const convert::Outcome& outcome) {
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

convert::Outcome execute_one(const ConversionJob& job, const RunArguments& arguments, ProgressDisplay& progress,
                             const Done& before) {
  const auto partial = io::partial_path(job.plan.layout.files.front().path);
  if (!arguments.resume && std::filesystem::exists(partial))
    warn(fmt::format("{} is left from an earlier run and is written anew (--resume would go on).", partial.string()));
  convert::ExecuteOptions options;
  options.overwrite = arguments.output.force;
  options.resume = arguments.resume;
  options.threads = arguments.threads;
  options.cancel = &interrupted();
  options.measure = !arguments.report.empty();
  options.progress = [&](const convert::Progress& p) {
    const double share =
        before.seconds_total > 0 ? (before.seconds + p.work_done / job.plan.threads) / before.seconds_total : 1;
    progress.update(before.bytes + p.bytes_done, before.bytes_total, p.current, std::min(share, 1.0));
  };
  return convert::execute(job.plan, job.model, options);
}

void report(const ConversionJob& job, const convert::Outcome& outcome, const std::string& path) {
  convert::Report report = convert::make_report(job.plan, outcome, outcome.layers);
  if (job.budget) report.frontier = job.budget->frontier;
  write_report(std::move(report), path);
}

}  // namespace

void add_run_options(CLI::App& app, RunArguments& arguments) {
  app.add_flag("-n,--dry-run", arguments.dry_run, "Only say what would be done");
  app.add_option("--report", arguments.report,
                 "Write a page with sizes, the error of every layer and what would mend it, and its numbers as .json "
                 "beside it")
      ->type_name("FILE.html");
  app.add_flag("--resume", arguments.resume, "Go on where an interrupted run of the same command stopped");
  add_json_option(app, arguments.json);
}

ConversionJob plan_job(checkpoint::Model model, const std::filesystem::path& output,
                       const convert::ConvertOptions& options, int threads) {
  auto plan = convert::make_plan(model, output, options, convert::thread_count(threads));
  convert::refuse_input_as_output(model.source(), plan.layout);
  for (const auto& adapters : {plan.merge, plan.scale_adapters, plan.input_adapters})
    if (adapters)
      for (const auto& file : adapters->files()) convert::refuse_input_as_output(file.source(), plan.layout);
  if (plan.original) convert::refuse_input_as_output(plan.original->source(), plan.layout);
  for (const auto& warning : plan.warnings) warn(warning);
  return {std::move(model), std::move(plan), std::nullopt};
}

int run_jobs(const std::vector<ConversionJob>& jobs, const RunArguments& arguments, const char* doing) {
  if (arguments.dry_run) return dry_run(jobs, arguments.json);
  const ScopedInterrupt scoped;
  ProgressDisplay progress(doing, arguments.output.quiet);
  Done done;
  for (const ConversionJob& job : jobs) {
    done.bytes_total += job.plan.bytes_in;
    done.seconds_total += estimated_seconds(job.plan);
  }
  auto results = nlohmann::ordered_json::array();
  int exit = kDone;
  for (const ConversionJob& job : jobs) {
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

}  // namespace mezzotint::cli
