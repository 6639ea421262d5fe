#include "mezzotint/convert/budget/measure.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

namespace mezzotint::convert {
namespace {

using formats::Layout;
using formats::Tile;

// 1 MiB of floats: a tile, its decoded values and its codes stay in a core's cache.
constexpr int64_t kMeasuredBytes = 1 << 20;

template <bool kWeighted>
void add(const float* values, const float* decoded, int64_t rows, int64_t cols, const float* weight,
         QuantizationError& sums) {
  for (int64_t r = 0; r < rows; ++r) {
    QuantizationError row;
    for (int64_t c = 0; c < cols; ++c) {
      const double value = static_cast<double>(values[r * cols + c]);
      const double e = static_cast<double>(decoded[r * cols + c]) - value;
      if (!std::isfinite(value) || !std::isfinite(e)) continue;
      row.error += e * e;
      row.norm += value * value;
      if constexpr (kWeighted) {
        const double w = static_cast<double>(weight[c]);
        row.out_error += w * e * e;
        row.out_norm += w * value * value;
      }
    }
    sums.error += row.error;
    sums.norm += row.norm;
    sums.out_error += row.out_error;
    sums.out_norm += row.out_norm;
  }
}

}  // namespace

MeasuredRows::MeasuredRows(const checkpoint::WeightValues& values, const Layout& layout, int64_t granule,
                           int64_t most_rows)
    : values_(&values),
      granule_(granule),
      rows_(layout.total_rows()),
      total_rows_(rows_),
      cols_(layout.cols),
      held_(most_rows > 0) {
  if (cols_ == 0) return;
  // Rows of a quantized source cannot be cut.
  granule_ = std::lcm(granule_, std::max<int64_t>(1, static_cast<int64_t>(values.granule()) / cols_));
  if (!held_) return;
  const int64_t run = layout.rows < granule_ ? layout.rows : granule_;
  const int64_t wanted = std::max<int64_t>(1, most_rows / std::max<int64_t>(1, run));
  const int64_t runs_per_expert = run == 0 ? 0 : layout.rows / run;
  const int64_t available = layout.experts * runs_per_expert;
  if (rows_ <= most_rows || available <= wanted) return;
  run_rows_ = run;
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t at = (2 * i + 1) * available / (2 * wanted);
    starts_.push_back(at / runs_per_expert * layout.rows + at % runs_per_expert * run);
  }
  rows_ = wanted * run;
}

uint64_t MeasuredRows::stored_bytes() const {
  return values_->stored_bytes(static_cast<uint64_t>(rows_ * cols_));
}

void MeasuredRows::load() {
  if (!held_) return;
  sample_.resize(static_cast<size_t>(rows_ * cols_));
  std::vector<std::byte> bytes;
  if (run_rows_ == 0) {
    for (uint64_t at = 0; at < values_->elements(); at += values_->span())
      values_->read(at, values_->span(), sample_.data() + at, bytes);
    return;
  }
  const auto count = static_cast<uint64_t>(run_rows_ * cols_);
  for (size_t i = 0; i < starts_.size(); ++i)
    values_->read(static_cast<uint64_t>(starts_[i] * cols_), count, sample_.data() + i * count, bytes);
}

std::optional<Layout> MeasuredRows::sampled_layout(const Layout& layout) const {
  if (run_rows_ == 0) return layout;
  return layout.format->describe({.shape = {rows_, cols_}}, layout.options).layout;
}

const float* MeasuredRows::read(const formats::RowRange& range, Scratch& scratch) const {
  if (held_) return sample_.data() + range.row0 * cols_;
  const auto count = static_cast<uint64_t>(range.rows * cols_);
  if (scratch.values.size() < count) scratch.values.resize(count);
  values_->read(static_cast<uint64_t>(range.row0 * cols_), count, scratch.values.data(), scratch.stored);
  return scratch.values.data();
}

QuantizationError MeasuredRows::measure(const Layout& full, const formats::ChooseOptions& choose,
                                        const Rounding& rounding, std::span<const float> weight) {
  QuantizationError sums;
  if (rows_ == 0 || cols_ == 0) return sums;
  assert(weight.empty() || weight.size() == static_cast<size_t>(cols_));
  assert(!held_ || !sample_.empty());
  const Layout layout = sampled_layout(full).value();
  const formats::Format& format = *layout.format;
  const int64_t step = std::lcm(granule_, layout.row_granule);
  const auto tiles = formats::row_tiles(
      layout, std::max(step, formats::rows_per_tile(layout, DType::f32, kMeasuredBytes) / step * step));
  Scratch scratch;
  formats::Parameters parameters = formats::new_parameters(layout);
  formats::ChoosePlan plan{.passes = 0};
  if (format.choose_plan != nullptr) plan = format.choose_plan(layout, choose);
  std::vector<float> stats(plan.stats, 0.0f);

  const auto prepare = [&](const formats::RowRange& range, const float* values) {
    const Tile tile{values, DType::f32, range.row0, range.rows, 0, cols_, cols_};
    return formats::prepare_tile(layout, tile, scratch.transformed);
  };
  const auto compare = [&](const Tile& tile, const float* values) {
    scratch.codes.assign(static_cast<size_t>(layout.code_rows(tile.rows) * layout.row_bytes), std::byte{0});
    format.encode(layout, parameters, tile, rounding, scratch.codes.data());
    scratch.decoded.resize(static_cast<size_t>(tile.rows * cols_));
    formats::decode_rows(layout, parameters, tile.row0, tile.rows, scratch.codes.data(), scratch.decoded.data());
    (weight.empty() ? add<false> : add<true>)(values, scratch.decoded.data(), tile.rows, cols_, weight.data(), sums);
  };
  for (int pass = 0; pass < plan.passes; ++pass) {
    const bool encodes = plan.fused && pass == plan.passes - 1;
    for (const auto& range : tiles) {
      const float* values = read(range, scratch);
      const Tile tile = prepare(range, values);
      format.observe(layout, choose, pass, tile, stats.data(), parameters);
      if (encodes) compare(tile, values);
    }
    if (format.finish != nullptr && !encodes) format.finish(layout, choose, pass, stats.data(), parameters);
  }
  if (plan.passes > 0 && plan.fused) return sums;
  for (const auto& range : tiles) {
    const float* values = read(range, scratch);
    compare(prepare(range, values), values);
  }
  return sums;
}

}  // namespace mezzotint::convert
