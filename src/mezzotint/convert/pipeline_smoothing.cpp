#include <algorithm>
#include <cmath>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/optimizers/smoothing.h"
#include "mezzotint/convert/pipeline_state.h"
#include "mezzotint/convert/smoothing/norms.h"
#include "mezzotint/kernel/cast.h"

// Rows whose inputs are smoothed (optimizers/smoothing.h): a first pass over the weight finds the factors, and what
// comes after it sees the smoothed weight and the statistics of smoothed inputs.
namespace mezzotint::convert {

void Pipeline::append_smoothing(const PlanRow& row, const std::shared_ptr<State>& state, Job& job) {
  // Layers that read one norm have the same factors: each of them looks at all.
  struct Piece {
    const PlanRow* reader;
    formats::RowRange range;
  };
  std::vector<const PlanRow*> readers = {&row};
  if (row.norm) {
    readers.clear();
    for (const size_t reader : row.norm->readers) readers.push_back(&plan_.rows[reader]);
  }
  std::vector<Piece> pieces;
  int64_t total = 0;
  for (const PlanRow* reader : readers) {
    const int64_t rows = tile_shape(model_, *reader, tile_bytes_).rows;
    for (const formats::RowRange& range : formats::row_tiles(*reader->layout, rows)) pieces.push_back({reader, range});
    total += reader->layout->total_rows();
  }
  if (row.norm)
    job.stages.push_back({.tiles = 1, .run = [this, state, readers](size_t, size_t) {
                            for (const PlanRow* reader : readers) load_adapters(*reader, *state);
                          }});
  Stage& stage = job.stages.emplace_back();
  stage.tiles = pieces.size();
  stage.run = [this, &row, state, total, pieces = std::move(pieces)](size_t index, size_t worker) {
    const RowTimer timer(state->nanoseconds);
    const auto& [reader, range] = pieces[index];
    const auto cols = static_cast<size_t>(reader->layout->cols);
    const formats::Tile tile =
        formats::float_tile(load_rows(*reader, *state, range, scratch_[worker]), scratch_[worker].floats);
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
    if (row.layout) advance(row, *state, tile.rows * row.layout->total_rows() / total);
  };
  stage.finish = [this, &row, state, readers = std::move(readers)] {
    const auto cols = static_cast<size_t>(row.shape.back());
    std::vector<float> input_amax(cols, 0.0f);
    for (const PlanRow* reader : readers)
      for (size_t c = 0; c < cols; ++c) input_amax[c] = std::max(input_amax[c], reader->statistics->channel_amax[c]);
    state->column_amax.resize(cols, 0.0f);
    state->input_factors = smoothing_factors(input_amax, state->column_amax, *row.smoothing);
    if (row.norm) make_exact(model_, plan_, *row.norm, state->input_factors);
    for (const float factor : state->input_factors) state->weight_factors.push_back(1 / factor);
    if (state->choose.column_weight.empty()) return;
    const std::vector<float>& moments = row.statistics->second_moment;
    state->column_weight.assign(moments.begin(), moments.end());
    for (size_t c = 0; c < state->column_weight.size(); ++c)
      state->column_weight[c] *= state->input_factors[c] * state->input_factors[c];
    state->choose.column_weight = state->column_weight;
  };
}

std::unique_ptr<Job> Pipeline::rescale_job(size_t index) {
  const PlanRow& row = plan_.rows[index];
  auto state = std::make_shared<State>();
  auto job = std::make_unique<Job>();
  append_smoothing(row, state, *job);
  job->stages.push_back({.tiles = 0, .run = {}, .finish = [this, &row, state, index] {
                           const io::TensorInfo& info = model_.source().tensors()[row.source];
                           std::vector<std::byte> bytes(info.bytes);
                           model_.source().read(row.source, 0, bytes.data(), bytes.size());
                           const auto count = static_cast<int64_t>(state->input_factors.size());
                           std::vector<float> values(state->input_factors.size());
                           kernel::cast({bytes.data(), info.dtype, 1, count, count}, DType::f32, values.data(), count);
                           checkpoint::scale_columns(state->input_factors, 1, values.data());
                           kernel::cast({values.data(), DType::f32, 1, count, count}, info.dtype, bytes.data(), count);
                           writer_.write(row.output, 0, bytes.data(), bytes.size());
                           bytes_done_ += row.bytes_in;
                           work_done_ += row_work(row).total();
                           row_finished(index);
                         }});
  return job;
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
  if (!row.norm) writer_.write(next, 0, state.input_factors.data(), bytes);
}

}  // namespace mezzotint::convert
