#include <algorithm>
#include <cmath>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/optimizers/smoothing.h"
#include "mezzotint/convert/pipeline_state.h"

// Rows whose inputs are smoothed (optimizers/smoothing.h): a first pass over the weight finds the factors, and what
// comes after it sees the smoothed weight and the statistics of smoothed inputs.
namespace mezzotint::convert {

void Pipeline::append_smoothing(const PlanRow& row, const std::shared_ptr<State>& state, Job& job) {
  Stage& stage = job.stages.emplace_back();
  stage.tiles = state->tiles.size();
  stage.run = [this, &row, state](size_t index, size_t worker) {
    const RowTimer timer(state->nanoseconds);
    const auto cols = static_cast<size_t>(row.layout->cols);
    const formats::Tile tile =
        formats::float_tile(load_rows(row, *state, state->tiles[index], scratch_[worker]), scratch_[worker].floats);
    const auto* values = static_cast<const float*>(tile.data);
    std::vector<float> amax(cols, 0.0f);
    for (int64_t r = 0; r < tile.rows; ++r)
      for (size_t c = 0; c < cols; ++c) {
        const float size = std::abs(values[static_cast<size_t>(r) * cols + c]);
        if (std::isfinite(size)) amax[c] = std::max(amax[c], size);
      }
    {
      const std::scoped_lock lock(state->column_mutex);
      state->column_amax.resize(cols, 0.0f);
      for (size_t c = 0; c < cols; ++c) state->column_amax[c] = std::max(state->column_amax[c], amax[c]);
    }
    advance(row, *state, tile.rows);
  };
  stage.finish = [&row, state] {
    const LayerStatistics& statistics = *row.statistics;
    state->column_amax.resize(static_cast<size_t>(row.layout->cols), 0.0f);
    state->input_factors = smoothing_factors(statistics.channel_amax, state->column_amax, *row.smoothing);
    for (const float factor : state->input_factors) state->weight_factors.push_back(1 / factor);
    if (state->choose.column_weight.empty()) return;
    state->column_weight.assign(statistics.second_moment.begin(), statistics.second_moment.end());
    for (size_t c = 0; c < state->column_weight.size(); ++c)
      state->column_weight[c] *= state->input_factors[c] * state->input_factors[c];
    state->choose.column_weight = state->column_weight;
  };
}

formats::Tile Pipeline::smooth(const State& state, const formats::Tile& tile, Scratch& scratch) const {
  if (state.weight_factors.empty()) return tile;
  const formats::Tile floats = tile.data == scratch.values.data() ? tile : formats::float_tile(tile, scratch.values);
  checkpoint::scale_columns(state.weight_factors, static_cast<uint64_t>(floats.rows), scratch.values.data());
  return floats;
}

void Pipeline::write_smoothing(const PlanRow& row, const State& state) {
  const size_t bytes = state.input_factors.size() * sizeof(float);
  size_t next = row.output + row.layout->tensors.size() + (row.has_marker ? 1 : 0);
  if (row.input_scale) {
    float amax = 0;
    for (size_t c = 0; c < state.input_factors.size(); ++c)
      amax = std::max(amax, row.statistics->channel_amax[c] * state.input_factors[c]);
    const float scale = amax / row.layout->format->input_scale_divisor;
    writer_.write(next++, 0, &scale, sizeof scale);
  }
  writer_.write(next, 0, state.input_factors.data(), bytes);
}

}  // namespace mezzotint::convert
