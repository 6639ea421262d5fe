#include "mezzotint/convert/budget/costs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/budget/priors.h"
#include "mezzotint/formats/parallel.h"

namespace mezzotint::convert {
namespace {

// Long enough for a disk to read at its speed, short enough to spread a million elements over the weight.
constexpr int64_t kRunRows = 16;

checkpoint::WeightValues values_of(const checkpoint::Model& model, const FormatLayer& layer) {
  return layer.layer == checkpoint::Model::npos ? checkpoint::WeightValues(model, layer.tensor)
                                                : checkpoint::WeightValues(model, model.layers()[layer.layer]);
}

const formats::Layout* any_layout(const FormatLayer& layer) {
  for (const LayerFormat& format : layer.formats)
    if (format.layout) return &*format.layout;
  return nullptr;
}

int64_t granule_of(const FormatLayer& layer) {
  int64_t granule = kRunRows;
  for (const LayerFormat& format : layer.formats)
    if (format.layout) granule = std::lcm(granule, format.layout->row_granule);
  return granule;
}

MeasuredRows rows_of(const checkpoint::WeightValues& values, const FormatLayer& layer, bool whole) {
  const formats::Layout& layout = *any_layout(layer);
  const int64_t granule = granule_of(layer);
  const int64_t wanted =
      std::max(2 * granule, std::min(kSampleRows, kSampleElements / std::max<int64_t>(1, layout.cols)));
  MeasuredRows rows(values, layout, granule, whole ? 0 : wanted);
  const bool fits = std::all_of(layer.formats.begin(), layer.formats.end(),
                                [&](const LayerFormat& format) { return !format.layout || rows.fits(*format.layout); });
  return fits ? rows : MeasuredRows(values, layout, granule, 0);
}

/// Threads whose rows fit the memory that the conversion may use.
int thread_bound(const std::vector<FormatLayer>& layers, const ConvertOptions& options, int threads) {
  uint64_t most = 1;
  for (const FormatLayer& layer : layers)
    if (const formats::Layout* layout = any_layout(layer)) {
      const int64_t sample = std::max(kSampleElements, 2 * granule_of(layer) * layout->cols);
      const int64_t tile = std::max<int64_t>(kSampleElements / 4, granule_of(layer) * layout->cols);
      most = std::max(most, static_cast<uint64_t>(sample + 4 * tile) * sizeof(float));
    }
  return static_cast<int>(
      std::clamp<uint64_t>(options.max_memory / most, 1, static_cast<uint64_t>(std::max(1, threads))));
}

/// Energies of the layers' outputs over the mean of their block, so that errors of a block are compared as they add up
/// in the residual stream, and blocks with a strong stream do not outweigh the others.
std::vector<double> shares_of(const std::vector<FormatLayer>& layers, const std::vector<double>& energies) {
  struct Block {
    double energy = 0;
    size_t layers = 0;
  };
  std::map<std::string_view, Block> blocks;
  for (size_t i = 0; i < layers.size(); ++i)
    if (energies[i] > 0) {
      Block& block = blocks[block_of(layers[i].name)];
      block.energy += energies[i];
      ++block.layers;
    }
  std::vector<double> shares(layers.size(), 0);
  for (size_t i = 0; i < layers.size(); ++i)
    if (energies[i] > 0) {
      const Block& block = blocks[block_of(layers[i].name)];
      shares[i] = energies[i] / (block.energy / static_cast<double>(block.layers));
    }
  return shares;
}

}  // namespace

double Costs::relative_error(size_t layer, size_t format) const {
  return std::sqrt(errors[layer][format].relative_squared());
}

double Costs::cost(size_t layer, size_t format) const {
  const QuantizationError& error = errors[layer][format];
  return weights[layer] * (error.out_norm > 0 ? error.out_relative_squared() : error.relative_squared());
}

double Costs::total_weight() const {
  return std::accumulate(weights.begin(), weights.end(), 0.0);
}

Costs measure_costs(const checkpoint::Model& model, const std::vector<FormatLayer>& layers,
                    const ConvertOptions& options, bool whole,
                    const std::function<bool(size_t layer, size_t format)>& wanted, const BudgetRun& run) {
  Costs costs;
  std::vector<double> energies(layers.size(), 0);
  uint64_t total = 0, done = 0;
  std::vector<size_t> measured;
  for (size_t i = 0; i < layers.size(); ++i) {
    costs.errors.emplace_back(layers[i].formats.size());
    bool any = false;
    for (size_t f = 0; f < layers[i].formats.size(); ++f) any |= layers[i].formats[f].layout && wanted(i, f);
    if (!any) continue;
    measured.push_back(i);
    total += rows_of(values_of(model, layers[i]), layers[i], whole).stored_bytes();
  }

  std::mutex mutex;
  formats::parallel_for(measured.size(), thread_bound(layers, options, run.threads), [&](size_t m) {
    const size_t i = measured[m];
    const FormatLayer& layer = layers[i];
    const checkpoint::WeightValues values = values_of(model, layer);
    MeasuredRows rows = rows_of(values, layer, whole);
    std::span<const float> moments;
    if (run.column_moments) moments = run.column_moments(layer.name);
    if (!moments.empty() && moments.size() != static_cast<size_t>(any_layout(layer)->cols))
      throw Error({.name = "bad-calibration",
                   .problem = "the calibration's statistics do not have the layer's width",
                   .tensor = layer.name,
                   .expected = fmt::format("{} columns", any_layout(layer)->cols),
                   .found = fmt::format("{}", moments.size())});
    rows.load();
    Rounding rounding;
    if (options.rounding == Rounding::Mode::stochastic)
      rounding = Rounding::stochastic(options.seed, layer.name + ".weight");
    for (size_t f = 0; f < layer.formats.size(); ++f) {
      const LayerFormat& format = layer.formats[f];
      if (!format.layout || !wanted(i, f)) continue;
      costs.errors[i][f] = rows.measure(*format.layout, {.effort = format.effort}, rounding, moments);
      if (rows.rows() > 0)
        energies[i] =
            costs.errors[i][f].out_norm * static_cast<double>(rows.total_rows()) / static_cast<double>(rows.rows());
    }
    const std::scoped_lock lock(mutex);
    done += rows.stored_bytes();
    if (run.progress) run.progress(done, total, layer.name);
  });

  std::vector<std::string> names;
  for (const FormatLayer& layer : layers) names.push_back(layer.name);
  costs.weights = priors_of(names);
  const std::vector<double> shares = shares_of(layers, energies);
  for (size_t i = 0; i < layers.size(); ++i)
    if (shares[i] > 0) {  // the statistics know what the name only hints at
      costs.weights[i] = shares[i];
      costs.calibrated = true;
    }
  return costs;
}

}  // namespace mezzotint::convert
