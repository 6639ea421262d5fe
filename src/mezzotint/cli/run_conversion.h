#pragma once
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/convert/budget/budget.h"
#include "mezzotint/convert/plan.h"

/// Runs plans, with progress, interruption and what is said at the end: `convert` and `merge`.
namespace mezzotint::cli {

/// One model of a call.
struct ConversionJob {
  checkpoint::Model model;
  convert::Plan plan;
  std::optional<convert::Budget> budget;
};

struct RunArguments {
  OutputArguments output;
  std::string report;
  bool dry_run = false, json = false, resume = false;
  int threads = 0;
};

/// The options that say how it runs.
void add_run_options(CLI::App& app, RunArguments& arguments);

/// Plans one model and says what is worth a warning.
ConversionJob plan_job(checkpoint::Model model, const std::filesystem::path& output,
                       const convert::ConvertOptions& options, int threads);

/// An exit code. `doing` names it in the progress: "converting".
int run_jobs(const std::vector<ConversionJob>& jobs, const RunArguments& arguments, const char* doing);

}  // namespace mezzotint::cli
