#include "mezzotint/convert/lora_aware/use.h"

#include <fmt/format.h>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/merging/feedback.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/merging/use.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;

bool is_encoded(const PlanRow& row) {
  return row.action == Action::encode || row.action == Action::reencode;
}

bool is_quantized(const PlanRow& row) {
  return row.layout && row.layout->format->quantized && !row.codes_only;
}

void add_reason(PlanRow& row, const std::string& reason) {
  row.reason += (row.reason.empty() ? "" : "; ") + reason;
}

/// Whether adapters for this tensor fit what the row encodes: one that enlarges it is for another weight.
bool fits(const PlanRow& row, const MergedTensor& adapters) {
  return adapters.after == adapters.before && adapters.before == (row.merge != nullptr ? row.merge->after : row.shape);
}

[[noreturn]] void refuse(const std::string& file, std::string problem, std::string advice) {
  throw Error({.name = "bad-option", .problem = std::move(problem), .file = file, .advice = std::move(advice)});
}

/// No layer is left to do something for. A layer config decides layer by layer, also for a size budget: only a warning.
void nothing_to_do(Plan& plan, const char* option, const std::string& file, const std::string& problem) {
  if (plan.options.layer_config.empty())
    refuse(file, problem, "Give a quantized format with --to, and check what --preset and --exclude keep.");
  plan.warnings.push_back(fmt::format("{}; `{}` changes nothing.", problem, option));
}

}  // namespace

void use_scale_adapters(Plan& plan, const Model& model) {
  const ConvertOptions& options = plan.options;
  if (options.scale_loras.empty()) return;
  plan.scale_adapters = std::make_shared<const Merge>(
      model, AdapterRequest{.files = options.scale_loras, .strict = options.lora_strict, .what = "Scales allow for"},
      plan.notes, plan.warnings);
  const std::map<size_t, size_t> rows = rows_by_tensor(plan);
  size_t ready = 0, kept = 0, unfit = 0;
  for (const auto& [tensor, adapters] : plan.scale_adapters->tensors()) {
    PlanRow& row = plan.rows[rows.at(tensor)];
    if (!is_quantized(row)) continue;  // nothing that could clip
    if (row.action == Action::keep_codes) {
      ++kept;
      continue;
    }
    if (!is_encoded(row) || row.layout->format->choose_plan == nullptr) continue;
    if (!fits(row, adapters)) {
      ++unfit;
      continue;
    }
    row.scale_adapters = &adapters;
    add_reason(row, "scales allow for adapters");
    ++ready;
    require_memory(plan, model, row);
  }
  if (kept > 0)
    plan.warnings.push_back(
        fmt::format("{} quantized layers that the adapters of `--lora` change keep their codes and their scales; "
                    "convert from the unquantized model to change that.",
                    kept));
  if (unfit > 0)
    plan.warnings.push_back(
        fmt::format("{} layers are enlarged by adapters; their scales allow for the weights alone.", unfit));
  if (ready == 0)
    nothing_to_do(plan, "--lora", options.scale_loras.front().file,
                  "No layer that the adapter changes gets new scales");
}

void use_input_adapters(Plan& plan, const Model& model) {
  const ConvertOptions& options = plan.options;
  if (options.calibration_loras.empty()) return;
  const std::string& first = options.calibration_loras.front().file;
  if (options.rounding != Rounding::Mode::nearest_even)
    refuse(first, "stochastic rounding spares no inputs", "Leave --rounding stochastic away.");
  if (options.optimizer == "plain" || options.optimizer == "search" ||
      (options.optimizer.empty() && options.effort == 0))
    refuse(first, "rounding to the nearest code spares no inputs",
           "Give --effort 1 or more, or an optimizer with feedback.");
  plan.input_adapters = std::make_shared<const Merge>(
      model,
      AdapterRequest{
          .files = options.calibration_loras, .strict = options.lora_strict, .what = "Rounding spares the inputs of"},
      plan.notes, plan.warnings);
  const std::map<size_t, size_t> rows = rows_by_tensor(plan);
  size_t ready = 0, without = 0;
  for (const auto& [tensor, adapters] : plan.input_adapters->tensors()) {
    PlanRow& row = plan.rows[rows.at(tensor)];
    // A layer that a preset or a config wants plain stays that.
    if (!is_quantized(row) || !is_encoded(row) || row.effort == 0) continue;
    if (adapters.rank == 0 || row.layout->experts != 1 || adapters.cols() != row.layout->cols) {
      ++without;
      continue;
    }
    row.input_adapters = &adapters;
    std::optional<ObjectiveOptions>& objective = row.method.objective;
    if (!objective) {
      objective = basis_objective();
      row.method.label += ", ldlq";
    } else if (objective->moments != Moments::basis) {
      objective->basis_weight = kInputWeight;
    }
    row.method.label += " for the inputs of adapters";
    add_reason(row, "rounding spares the inputs of adapters");
    ++ready;
  }
  if (without > 0)
    plan.warnings.push_back(
        fmt::format("{} layers have adapters of `--calibration-lora` that are no products of two matrices over the "
                    "layer's inputs; these layers are rounded without them.",
                    without));
  if (ready == 0)
    nothing_to_do(plan, "--calibration-lora", first,
                  "No layer that is quantized anew has inputs that the adapter reads");
}

int64_t basis_rank(const PlanRow& row) {
  return (row.merge != nullptr && row.keeps_format ? row.merge->rank : 0) +
         (row.input_adapters != nullptr ? row.input_adapters->rank : 0);
}

}  // namespace mezzotint::convert
