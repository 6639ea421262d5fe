#include "mezzotint/convert/methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/lora_aware/use.h"
#include "mezzotint/convert/merging/feedback.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/tiles.h"
#include "mezzotint/kernel/feedback.h"

namespace mezzotint::convert {
namespace {

// Measured on one core with AVX-512 (docs/quality.md); a progress that is a little off is no harm.
constexpr double kBytesPerSecond = 1.5e9, kOperationsPerSecond = 1.2e11;

void correct_biases(Plan& plan, const checkpoint::Model& model) {
  std::map<std::string, size_t, std::less<>> biases;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    const bool stays = row.action == Action::copy || (row.action == Action::encode && row.merge != nullptr);
    if (stays && row.shape.size() == 1 && row.name.ends_with(".bias")) biases.emplace(row.name, i);
  }
  size_t corrected = 0;
  for (PlanRow& row : plan.rows) {
    if (row.statistics == nullptr || (row.action != Action::encode && row.action != Action::reencode)) continue;
    const std::string layer(checkpoint::split_name(model.source().tensors()[row.source].name).first);
    const auto found = biases.find(layer + ".bias");
    if (found == biases.end()) continue;
    PlanRow& bias = plan.rows[found->second];
    const DType dtype = model.source().tensors()[bias.source].dtype;
    if (!is_plain_float(dtype) || bias.shape[0] != row.layout->total_rows() || row.layout->experts != 1) continue;
    bias.action = Action::correct;
    bias.layout.reset();  // written with its weight, patched or not
    bias.reason =
        (bias.merge ? bias.reason + "; " : "") + "corrected for what rounding does to the layer's mean output";
    row.bias = found->second;
    ++corrected;
  }
  if (corrected > 0)
    plan.notes.push_back(fmt::format("{} biases are corrected by the means of the calibration files.", corrected));
}

bool takes_bf16(const ConvertOptions& options, const checkpoint::Model& model, const PlanRow& row) {
  if (options.bf16_compute == Bf16Compute::off || row.method.objective->moments == Moments::inputs) return false;
  const bool stored_so = row.action == Action::encode && !row.layout->transformed && !row.smoothing && !row.merge &&
                         model.source().tensors()[row.source].dtype == DType::bf16;
  return (stored_so || options.bf16_compute == Bf16Compute::on) && has_bf16_products();
}

/// Of a quantized layer that adapters change and that keeps its format.
Method merged_method(const ConvertOptions& options, const PlanRow& row) {
  // Only scales that are searched find those of a base whose scales were.
  Method method = choose_method("", 1, *row.layout, nullptr);
  if (options.rounding == Rounding::Mode::stochastic || options.merge_rounding != MergeRounding::feedback)
    return method;
  method.objective = merge_objective(*row.merge, *row.layout);
  if (method.objective) method.label = "ldlq for adapters";
  return method;
}

}  // namespace

void choose_methods(Plan& plan, const checkpoint::Model& model) {
  const ConvertOptions& options = plan.options;
  for (PlanRow& row : plan.rows) {
    if (row.action != Action::encode && row.action != Action::reencode) continue;
    if (row.keeps_format && !row.original) {
      row.method = merged_method(options, row);
      continue;
    }
    const bool simple = row.effort == 0 && options.effort > 0;
    row.method =
        choose_method(simple ? "plain" : options.optimizer, row.effort, *row.layout, row.statistics, options.subspace);
    if (row.method.objective) {
      ObjectiveOptions& objective = *row.method.objective;
      objective.bf16_moments = takes_bf16(options, model, row);
      if (objective.signs)
        objective.signs = Rounding::stochastic(options.seed, model.source().tensors()[row.source].name).key;
    }
    if (!row.method.objective || options.rounding == Rounding::Mode::nearest_even) continue;
    throw Error({.name = "bad-option",
                 .problem = "stochastic rounding leaves nothing for an optimizer to decide",
                 .found = fmt::format("--rounding stochastic with the optimizer {}", row.method.label),
                 .advice = "Give --optimizer plain or search, or --effort 1."});
  }
  if (plan.calibration && !options.no_bias_correction) correct_biases(plan, model);
}

RowWork row_work(const PlanRow& row) {
  RowWork work;
  if (row.action == Action::drop) return work;
  work.bytes = static_cast<double>(row.bytes_in) / kBytesPerSecond;
  if (!row.method.objective) return work;
  const ObjectiveOptions& options = *row.method.objective;
  const auto rows = static_cast<double>(row.layout->total_rows()), cols = static_cast<double>(row.layout->cols);
  const auto experts = static_cast<double>(row.layout->experts);
  const double width = options.segment > 0 ? std::min(cols, static_cast<double>(options.segment)) : cols;
  if (options.moments == Moments::basis) {  // what the basis sees of errors, and blocks of columns
    const auto rank = static_cast<double>(basis_rank(row));
    work.factor = cols * rank * rank / kOperationsPerSecond;
    work.rounding = rows * cols * (8 * rank + 4 * kernel::kFeedbackColumns) / kOperationsPerSecond;
    return work;
  }
  work.moments = rows * cols * width / kOperationsPerSecond;
  if (options.moments == Moments::inputs) work.moments = cols * cols * 8 / kBytesPerSecond;
  work.factor = experts * cols * width * width / 3 / kOperationsPerSecond;
  if (options.moments == Moments::subspace)
    work.factor += 28 * cols * cols * static_cast<double>(options.subspace) / kOperationsPerSecond;
  work.rounding = rows * cols * width * 2 * (1 + options.sweeps) / kOperationsPerSecond;
  if (options.signs) {  // a second H and factor; two more passes of ldlq, one that measures, sweeps again
    work.moments *= 2;
    work.factor *= 2;
    work.rounding += rows * cols * width * 2 * (2.5 + options.sweeps) / kOperationsPerSecond;
  }
  return work;
}

double total_work(const Plan& plan) {
  double work = 0;
  for (const PlanRow& row : plan.rows) work += row_work(row).total();
  return work;
}

}  // namespace mezzotint::convert
