#include "mezzotint/convert/correction/layer_errors.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "mezzotint/formats/parallel.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

constexpr uint64_t kBlockRows = 128;

Energy energy_of(const Metric& metric, const std::vector<float>& values, int64_t rows) {
  Energy energy{.metric = metric.energy(values.data(), rows)};
  for (const float value : values) energy.plain += double{value} * double{value};
  return energy;
}

Energy sum(const std::vector<Energy>& parts) {
  Energy total;
  for (const Energy& part : parts) {
    total.metric += part.metric;
    total.plain += part.plain;
  }
  return total;
}

}  // namespace

LayerErrors::LayerErrors(checkpoint::WeightValues original, checkpoint::WeightValues quantized, int64_t rows,
                         int64_t cols, uint64_t memory)
    : original_(std::move(original)), quantized_(std::move(quantized)) {
  matrix_.rows = rows;
  matrix_.cols = cols;
  // Runs end where formats can be cut, which need not be at rows of the matrix: a block is as many as make whole rows.
  const auto width = static_cast<uint64_t>(cols);
  const uint64_t step = std::lcm(
      width, std::lcm(std::max<uint64_t>(original_.granule(), 1), std::max<uint64_t>(quantized_.granule(), 1)));
  const uint64_t target = std::max<uint64_t>(kBlockRows * width / step, 1) * step;
  bool whole = true;
  for (const auto& run : checkpoint::cut_runs(original_, &quantized_, target)) {
    if (whole) {
      matrix_.blocks.push_back({static_cast<int64_t>(run.first / width), 0});
      runs_.emplace_back();
    }
    runs_.back().push_back(run);
    const uint64_t end = run.first + run.count;
    whole = end % width == 0;
    matrix_.blocks.back().rows = static_cast<int64_t>(end / width) - matrix_.blocks.back().row0;
  }
  if (original_.elements() * sizeof(float) <= memory) kept_.resize(original_.elements());
  matrix_.read = [this](size_t block, float* buffer) -> const float* {
    if (!kept_.empty()) return kept_.data() + matrix_.blocks[block].row0 * matrix_.cols;
    std::vector<float> decoded;
    read(block, buffer, decoded);
    return buffer;
  };
}

void LayerErrors::read(size_t block, float* error, std::vector<float>& decoded) const {
  const auto count = static_cast<size_t>(matrix_.blocks[block].rows * matrix_.cols);
  std::vector<std::byte> bytes;
  decoded.resize(count);
  uint64_t at = 0;
  for (const checkpoint::Run& run : runs_[block]) {
    original_.read(run.first, run.count, error + at, bytes);
    quantized_.read(run.first, run.count, decoded.data() + at, bytes);
    at += run.count;
  }
  for (size_t i = 0; i < count; ++i) {
    error[i] -= decoded[i];
    if (!std::isfinite(error[i])) error[i] = decoded[i] = 0;
  }
}

void LayerErrors::measure(const Metric& metric, int threads, Energy& weight, Energy& error) {
  std::vector<Energy> weights(matrix_.blocks.size()), errors(matrix_.blocks.size());
  formats::parallel_for(matrix_.blocks.size(), threads, [&](size_t block) {
    const auto& [row0, rows] = matrix_.blocks[block];
    std::vector<float> values(static_cast<size_t>(rows * matrix_.cols)), decoded;
    read(block, values.data(), decoded);
    errors[block] = energy_of(metric, values, rows);
    if (!kept_.empty()) std::copy(values.begin(), values.end(), kept_.begin() + row0 * matrix_.cols);
    for (size_t i = 0; i < values.size(); ++i) values[i] += decoded[i];
    weights[block] = energy_of(metric, values, rows);
  });
  weight = sum(weights);
  error = sum(errors);
}

Energy LayerErrors::measure_rest(const Metric& metric, const LowRank& factors, int threads) const {
  std::vector<Energy> rests(matrix_.blocks.size());
  formats::parallel_for(matrix_.blocks.size(), threads, [&](size_t block) {
    const auto& [row0, rows] = matrix_.blocks[block];
    std::vector<float> rest(static_cast<size_t>(rows * matrix_.cols));
    const float* error = matrix_.read(block, rest.data());
    if (error != rest.data()) std::copy_n(error, rest.size(), rest.data());
    dense::multiply(dense::Transposed::no, dense::Transposed::no, rows, matrix_.cols, factors.rank, -1.0f,
                    factors.up.data() + row0 * factors.rank, factors.rank, factors.down.data(), matrix_.cols, 1.0f,
                    rest.data(), matrix_.cols);
    rests[block] = energy_of(metric, rest, rows);
  });
  return sum(rests);
}

}  // namespace mezzotint::convert
