#include "mezzotint/convert/correction/correction.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/base/version.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/convert/correction/layer_errors.h"
#include "mezzotint/convert/correction/layer_progress.h"
#include "mezzotint/convert/correction/lora_file.h"
#include "mezzotint/convert/correction/lora_names.h"
#include "mezzotint/convert/model_entries.h"
#include "mezzotint/convert/optimizers/method.h"
#include "mezzotint/convert/smoothing/rescaled.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;

constexpr unsigned kWideBits = 16;  // what has so many is not corrected
using checkpoint::kDotWeight;

class Corrector {
 public:
  Corrector(const Model& original, const Model& quantized, const CorrectionOptions& options)
      : original_(original),
        quantized_(quantized),
        options_(options),
        components_(find_components(quantized.source().tensors())),
        file_(options.dtype, options.rank) {
    if (!options.calibration.empty()) calibration_ = Calibration::open(options.calibration);
  }

  Correction run(const std::filesystem::path& output) {
    LoraFile::check(output, inputs(), options_.overwrite);
    find_pairs();
    rescaled_ = rescaled_tensors(original_, quantized_);
    for (const Pair& pair : pairs_) progress_.expect(pair.bytes);
    for (const Pair& pair : pairs_) {
      progress_.begin(pair.name, pair.bytes);
      correct(pair);
    }
    finish();
    if (!file_.empty()) write(output);
    return std::move(result_);
  }

 private:
  struct Pair {
    std::string name;  // of the layer
    ModelEntry original, quantized;
    uint64_t bytes = 0;
  };

  std::vector<const io::Source*> inputs() const { return {&original_.source(), &quantized_.source()}; }

  void find_pairs() {
    const ModelEntries from = entries_of(original_);
    size_t common = 0;
    for (const auto& [tensor, entry] : entries_of(quantized_)) {
      const auto other = from.find(tensor);
      if (other == from.end() || !tensor.ends_with(kDotWeight)) continue;
      const Shape& shape = entry.shape(quantized_);
      if (shape.size() != 2 || shape != other->second.shape(original_)) continue;
      ++common;
      if (facts(entry.info(quantized_).dtype).bits >= kWideBits) continue;
      if (shape[0] == 0 || shape[1] == 0) continue;
      pairs_.push_back({tensor.substr(0, tensor.size() - kDotWeight.size()), other->second, entry,
                        other->second.info(original_).bytes});
    }
    if (common == 0)
      throw Error({.name = "no-common-layers",
                   .problem = "the files have no matrix of the same name and shape",
                   .file = quantized_.source().files().front().string(),
                   .advice = "Give the original first, then what it was converted to."});
  }

  Metric metric_for(CorrectedLayer& layer) {
    const LayerStatistics* statistics = calibration_ ? calibration_->find(layer.name, layer.cols) : nullptr;
    if (statistics == nullptr) {
      if (calibration_) missing_.push_back(layer.name);
      return Metric(layer.cols);
    }
    Metric metric(*calibration_, layer.name, *statistics, damping_of(statistics->tokens, layer.cols), options_.threads);
    layer.metric = metric.whole()         ? CorrectionMetric::inputs
                   : metric.damping() > 0 ? CorrectionMetric::moments
                                          : CorrectionMetric::weight;
    return metric;
  }

  void correct(const Pair& pair) {
    if (identical_tensors(original_, pair.original, quantized_, pair.quantized) > 0) {
      ++result_.identical;
      return;
    }
    const Shape& shape = pair.quantized.shape(quantized_);
    CorrectedLayer layer{.name = pair.name,
                         .from = pair.original.label(original_),
                         .to = pair.quantized.label(quantized_),
                         .rows = shape[0],
                         .cols = shape[1]};
    layer.rank = std::min({options_.rank, layer.rows, layer.cols});
    auto original = pair.original.values(original_);
    auto quantized = pair.quantized.values(quantized_);
    if (!original || !quantized) return leave_out(std::move(layer), "its values cannot be read");
    if (rescaled_.contains(pair.quantized.info(quantized_).name))
      return leave_out(std::move(layer), "the norm in front took over its smoothing factors");
    const Metric metric = metric_for(layer);
    LayerErrors errors(std::move(*original), std::move(*quantized), layer.rows, layer.cols, options_.max_memory / 2);
    Energy weight, error;
    errors.measure(metric, options_.threads, weight, error);
    if (error.plain == 0) {
      ++result_.identical;
      return;
    }
    weight_.plain += weight.plain;
    before_.plain += error.plain;
    // The damping is for the factor; errors are told without it.
    const auto output_error = [&](const Energy& part) {
      return root_ratio(part.metric - metric.damping() * part.plain, weight.metric - metric.damping() * weight.plain);
    };
    layer.weight_before = layer.weight_after = root_ratio(error.plain, weight.plain);
    if (layer.metric != CorrectionMetric::weight) layer.output_before = layer.output_after = output_error(error);
    const auto key = lora_key(components_, layer.name);
    if (!key) return leave_out(std::move(layer), "ComfyUI applies no LoRA to this part", error);
    progress_.report(0.3);
    LowRank factors = nearest_of_rank(errors.matrix(), metric, layer.rank, options_.threads);
    progress_.report(0.8);
    std::vector<std::byte> up = file_.round(factors.up), down = file_.round(factors.down);
    const Energy rest = errors.measure_rest(metric, factors, options_.threads);
    if (!(rest.metric < error.metric))
      return leave_out(std::move(layer), "a correction would not lower its error", error);
    after_.plain += rest.plain;
    layer.weight_after = root_ratio(rest.plain, weight.plain);
    if (layer.metric != CorrectionMetric::weight) layer.output_after = output_error(rest);
    layer.key = *key;
    // Loaders multiply by alpha / rank.
    file_.add(layer.key, shape, layer.rank, std::move(up), std::move(down), static_cast<double>(layer.rank));
    ++result_.written;
    result_.layers.push_back(std::move(layer));
  }

  void leave_out(CorrectedLayer layer, std::string reason, const Energy& error = {}) {
    after_.plain += error.plain;
    layer.rank = 0;
    layer.reason = std::move(reason);
    result_.layers.push_back(std::move(layer));
  }

  void finish() {
    std::stable_sort(result_.layers.begin(), result_.layers.end(),
                     [](const CorrectedLayer& a, const CorrectedLayer& b) { return a.before() > b.before(); });
    result_.weight_before = root_ratio(before_.plain, weight_.plain);
    result_.weight_after = root_ratio(after_.plain, weight_.plain);
    double before = 0, after = 0;
    size_t known = 0;
    for (const CorrectedLayer& layer : result_.layers) {
      if (!layer.output_before) continue;
      before += *layer.output_before * *layer.output_before;
      after += *layer.output_after * *layer.output_after;
      ++known;
    }
    if (known > 0) {
      result_.output_before = std::sqrt(before / static_cast<double>(known));
      result_.output_after = std::sqrt(after / static_cast<double>(known));
    }
    if (!missing_.empty())
      result_.warnings.push_back(fmt::format(
          "{} of {} layers have no statistics in the calibration files (first: {}); the error of their weights is what "
          "was corrected.",
          missing_.size(), result_.layers.size(), missing_.front()));
  }

  void write(const std::filesystem::path& output) {
    nlohmann::ordered_json made{{"rank", options_.rank}, {"dtype", name(options_.dtype)}};
    if (calibration_) made["calibration"] = calibration_->fingerprint_text();
    const nlohmann::ordered_json origin{{"version", kVersion}, {"correction", made}};
    result_.bytes = file_.write(output, origin.dump(), inputs(), options_.overwrite);
  }

  const Model& original_;
  const Model& quantized_;
  const CorrectionOptions& options_;
  std::vector<Component> components_;
  std::optional<Calibration> calibration_;
  std::map<std::string, std::vector<float>, std::less<>> rescaled_;
  std::vector<Pair> pairs_;
  LoraFile file_;
  std::vector<std::string> missing_;
  Energy weight_, before_, after_;
  LayerProgress progress_{options_.progress, options_.cancel};
  Correction result_;
};

}  // namespace

std::string_view name(CorrectionMetric metric) {
  switch (metric) {
    case CorrectionMetric::weight:
      return "weight";
    case CorrectionMetric::moments:
      return "moments";
    case CorrectionMetric::inputs:
      return "inputs";
  }
  return "";
}

Correction write_correction(const Model& original, const Model& quantized, const std::filesystem::path& output,
                            const CorrectionOptions& options) {
  return Corrector(original, quantized, options).run(output);
}

}  // namespace mezzotint::convert
