#include "mezzotint/convert/calibration/use.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/calibration/input_scale.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/smoothing/assign.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;

// Fewer than this many tokens say little about a layer (algorithms.md: 256 already give most of the gain).
constexpr uint64_t kFewTokens = 256;

std::vector<std::filesystem::path> open_paths(const ConvertOptions& options) {
  return {options.calibration.begin(), options.calibration.end()};
}

void check_fingerprint(const std::string& wanted, const std::string& found) {
  if (wanted.empty() || wanted == found) return;
  const std::string advice = "Give the files that it was made with, or take 'calibration' out of the recipe.";
  if (found.empty())
    throw Error({.name = "calibration-needed",
                 .problem = "the recipe was made with calibration files, and none are given",
                 .expected = "--calibration FILE with the fingerprint " + wanted,
                 .advice = advice});
  throw Error({.name = "calibration-differs",
               .problem = "the recipe was made with other calibration files",
               .expected = "fingerprint " + wanted,
               .found = found,
               .advice = advice});
}

void check_smoothing(const ConvertOptions& options) {
  if (!options.smooth) return;
  if (!(*options.smooth >= 0 && *options.smooth <= 1))
    throw Error({.name = "bad-option",
                 .problem = "the exponent of smoothing is not between 0 and 1",
                 .found = fmt::format("{}", *options.smooth)});
  if (options.calibration.empty())
    throw Error({.name = "bad-option",
                 .problem = "smoothing needs to know how large the inputs of layers are",
                 .advice = "Give --calibration FILE with --smooth (docs/calibration.md)."});
  const auto percentile = parse_input_scale(options.input_scale);
  if (percentile && *percentile < 100)
    throw Error({.name = "bad-option",
                 .problem = "percentiles of smoothed inputs are not known",
                 .found = "--input-scale " + options.input_scale,
                 .advice = "Give --input-scale amax or none with --smooth."});
}

class CalibrationAssignment {
 public:
  CalibrationAssignment(Plan& plan, const Model& model)
      : plan_(plan),
        model_(model),
        percentile_(parse_input_scale(plan.options.input_scale)),
        components_(find_components(model.source().tensors())),
        selected_(components_.size(), false) {
    for (const size_t index : select_components(components_, plan.options.component)) selected_[index] = true;
  }

  void run() {
    std::vector<size_t> quantized;
    for (size_t i = 0; i < plan_.rows.size(); ++i) {
      PlanRow& row = plan_.rows[i];
      if (row.action == Action::drop || !row.layout || !row.layout->format->quantized || row.codes_only ||
          !is_selected(row))
        continue;
      assign(row);
      quantized.push_back(i);
    }
    for (PlanRow& row : plan_.rows) drop_replaced(row);
    report();
    if (plan_.options.smooth) assign_smoothing(plan_, model_, quantized);
  }

 private:
  bool is_selected(const PlanRow& row) const {
    return selected_[component_of(components_, model_.source().tensors()[row.source].name)];
  }

  void assign(PlanRow& row) {
    row.statistics = plan_.calibration->find(row.name, row.layout->cols);
    if (row.action != Action::keep_codes) {
      ++layers_;
      if (row.statistics == nullptr) missing_.push_back(row.name);
    }
    if (row.statistics == nullptr) return;
    const auto [other, fresh] = owners_.try_emplace(row.statistics, &row.name);
    if (!fresh)
      throw Error({.name = "calibration-ambiguous",
                   .problem = "two layers of the model have the same statistics, because the files have no prefixes",
                   .tensor = row.name,
                   .found = *other->second,
                   .advice = "Record with the names of the checkpoint, or choose one part with --component."});
    least_tokens_ = std::min(least_tokens_, row.statistics->tokens);
    // Loaders smooth before they round; what was measured is the input in front of that.
    const bool keeps = row.action == Action::keep_codes || row.keeps_format;
    const bool smoothed = keeps && model_.layers()[row.layer].smoothed;
    if (percentile_ && !smoothed) row.input_scale = input_scale(*row.statistics, *row.layout->format, *percentile_);
    if (row.input_scale) {
      ++scales_;
      if (keeps) replaced_.push_back(row.layer);
    } else if (row.statistics->amax == 0) {
      ++silent_;
    }
  }

  /// The input_scale that a layer with kept codes brings along.
  void drop_replaced(PlanRow& row) const {
    const size_t layer = model_.layer_of(row.source);
    if (row.action != Action::copy || layer == Model::npos || model_.layers()[layer].input_scale != row.source ||
        std::find(replaced_.begin(), replaced_.end(), layer) == replaced_.end())
      return;
    row.action = Action::drop;
    row.to.clear();
    row.stored_as.clear();
    row.reason = "replaced by the one from --calibration";
  }

  std::vector<std::string> matrices() const {
    std::vector<std::string> names;
    for (const io::TensorInfo& info : model_.source().tensors()) {
      const auto [layer, suffix] = checkpoint::split_name(info.name);
      if (suffix == "weight" && info.shape.size() >= 2) names.emplace_back(layer);
    }
    return names;
  }

  void report() {
    const Calibration& calibration = *plan_.calibration;
    const auto unused = calibration.unused(matrices());
    const size_t recorded = calibration.layers().size();
    if (unused.size() == recorded)
      throw Error({.name = "calibration-unrelated",
                   .problem = "no layer of the calibration files is in the model",
                   .file = plan_.options.calibration.front(),
                   .found = unused.front(),
                   .advice = "Layers are matched by the names that they have in the checkpoint."});
    if (!unused.empty())
      plan_.warnings.push_back(fmt::format(
          "{} of {} layers of the calibration files are not in the model (first: {}); `--calibration` wants the "
          "names of the checkpoint.",
          unused.size(), recorded, unused.front()));
    if (!missing_.empty())
      plan_.warnings.push_back(fmt::format(
          "{} of {} layers to be quantized have no statistics in the calibration files (first: {}); they are quantized "
          "without. `--calibration` takes further files.",
          missing_.size(), layers_, missing_.front()));
    if (silent_ > 0)
      plan_.warnings.push_back(fmt::format(
          "{} layers saw nothing but zeros in the calibration; they get no input_scale. Record other inputs for "
          "`--calibration`.",
          silent_));
    if (!owners_.empty() && least_tokens_ < kFewTokens)
      plan_.warnings.push_back(
          fmt::format("The calibration of some layers is of {} tokens only; record {} or more for `--calibration`.",
                      least_tokens_, kFewTokens));
    plan_.notes.push_back(fmt::format("Calibration {}: statistics for {} layers, input_scale for {}.",
                                      calibration.fingerprint_text(), owners_.size(), scales_));
  }

  Plan& plan_;
  const Model& model_;
  std::optional<double> percentile_;
  std::vector<Component> components_;
  std::vector<bool> selected_;
  std::map<const LayerStatistics*, const std::string*> owners_;
  std::vector<std::string> missing_;
  std::vector<size_t> replaced_;  // layers whose own input_scale goes
  size_t layers_ = 0, scales_ = 0, silent_ = 0;
  uint64_t least_tokens_ = ~uint64_t{0};
};

}  // namespace

void use_calibration(Plan& plan, const Model& model) {
  ConvertOptions& options = plan.options;
  parse_input_scale(options.input_scale);
  if (!options.calibration.empty()) plan.calibration = Calibration::open(open_paths(options));
  const std::string found = plan.calibration ? plan.calibration->fingerprint_text() : "";
  check_fingerprint(options.calibration_fingerprint, found);
  options.calibration_fingerprint = found;
  check_smoothing(options);
  if (plan.calibration) CalibrationAssignment(plan, model).run();
}

}  // namespace mezzotint::convert
