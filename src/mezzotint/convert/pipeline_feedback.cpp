#include <fmt/format.h>

#include <algorithm>

#include "mezzotint/convert/merging/feedback.h"
#include "mezzotint/convert/optimizers/moments.h"
#include "mezzotint/convert/optimizers/smoothing.h"
#include "mezzotint/convert/pipeline_state.h"

// Rows that are rounded with feedback (optimizers/objective.h): a Hessian for every expert, then strips of its rows.
namespace mezzotint::convert {

size_t Pipeline::window(const Plan& plan, int threads) {
  const bool hessians = std::any_of(plan.rows.begin(), plan.rows.end(), [](const PlanRow& row) {
    return row.method.objective && row.method.objective->moments != Moments::basis;
  });
  return hessians ? 1 : static_cast<size_t>(threads) + 1;
}

uint64_t Pipeline::feedback_bytes(const PlanRow& row, size_t threads, uint64_t tiles_in_memory) {
  if (!row.method.objective) return 0;
  const ObjectiveOptions& options = *row.method.objective;
  const formats::Layout& layout = *row.layout;
  const auto cols = static_cast<uint64_t>(layout.cols);
  const int64_t merged = row.merge != nullptr ? merge_granule(*row.merge, layout) : 1;
  const auto rows = static_cast<uint64_t>(std::max({kStripRows, layout.row_granule, merged}));
  const uint64_t making = Objective::panel_bytes(layout.cols, options, threads);
  const uint64_t rounding =
      threads * (Objective::strip_bytes(layout, options, static_cast<int64_t>(rows)) + 3 * rows * cols * sizeof(float));
  const bool rotated = layout.transformed && options.moments == Moments::inputs;
  const uint64_t tiles = Objective::tile_bytes(layout.cols, options);
  return std::max(making, rounding) + (tiles <= tiles_in_memory ? tiles : 0) +
         (rotated ? cols * cols * sizeof(float) : 0);
}

void Pipeline::append_feedback(const PlanRow& row, const std::shared_ptr<State>& state, Job& job) {
  state->strips = formats::row_tiles(*row.layout, kStripRows);
  state->sums.resize(state->strips.size());
  if (measure_) state->meter = std::make_unique<LayerMeter>(state->strips.size());
  if (row.method.objective->moments == Moments::inputs && row.layout->transformed)
    job.stages.push_back({.tiles = 1,
                          .run =
                              [this, &row, state](size_t, size_t) {
                                const int64_t n = row.layout->cols;
                                state->moments.resize(static_cast<size_t>(n * n));
                                plan_.calibration->read_gram_rows(row.name, 0, n, state->moments.data());
                                rotate_moments(state->moments, n, [&row](float* rows, int64_t count) {
                                  row.layout->format->transform(*row.layout, rows, count, false);
                                });
                              },
                          .finish = {}});
  if (row.input_adapters != nullptr)
    job.stages.push_back(
        {.tiles = 1, .run = [this, &row, state](size_t, size_t) { load_input_basis(row, *state); }, .finish = {}});
  job.stages.push_back(
      {.tiles = 0, .run = {}, .finish = [this, &row, state, &job] { append_expert(row, state, job, 0); }});
}

void Pipeline::append_expert(const PlanRow& row, const std::shared_ptr<State>& state, Job& job, int64_t expert) {
  const formats::Layout& layout = *row.layout;
  state->objective.reset();
  if (expert == layout.experts) return finish_feedback(row, state, job);
  ObjectiveSource source;
  source.rows = layout.rows;
  source.cols = layout.cols;
  // By pointer: the state owns the objective, and a run that is interrupted must not leave a circle behind.
  source.weights = [this, &row, state = state.get(), expert, &layout](int64_t row0, int64_t rows, size_t worker,
                                                                      float* out) {
    const formats::Tile tile = load_rows(row, *state, {expert * layout.rows + row0, rows}, scratch_[worker]);
    const formats::Tile floats = formats::float_tile(tile, scratch_[worker].floats);
    std::copy_n(static_cast<const float*>(floats.data), rows * layout.cols, out);
    const double passes = row.method.objective->signs ? 2 : 1;
    count_work(*state,
               state->work.moments / passes * static_cast<double>(rows) / static_cast<double>(layout.total_rows()));
  };
  source.basis = state->basis;
  source.moments = [this, &row, state = state.get(), &layout](int64_t row0, int64_t rows, float* out) {
    if (!state->moments.empty())
      std::copy_n(state->moments.data() + row0 * layout.cols, rows * layout.cols, out);
    else
      plan_.calibration->read_gram_rows(row.name, row0, rows, out);
    if (!state->input_factors.empty()) smooth_moments(state->input_factors, row0, rows, out);
  };
  const uint64_t tiles = Objective::tile_bytes(layout.cols, *row.method.objective);
  if (tiles > objective_memory_ && !state->scratch.is_open()) {
    const auto path = std::filesystem::path(plan_.output).concat(fmt::format(".{}.scratch", row.output));
    state->scratch = io::platform::File::open_write(path, true);
    io::platform::remove(path);  // it lives as long as it is open
  }
  if (state->scratch.is_open()) state->scratch.resize(0);  // tiles start as zeros
  state->objective = std::make_unique<Objective>(std::move(source), *row.method.objective, scratch_.size(),
                                                 state->scratch.is_open() ? &state->scratch : nullptr);
  state->objective->append_stages(job, [this, &row, state, &job, expert] {
    const formats::Layout& matrix = *row.layout;
    auto strips = std::make_shared<std::vector<size_t>>();
    for (size_t i = 0; i < state->strips.size(); ++i)
      if (state->strips[i].row0 / matrix.rows == expert) strips->push_back(i);
    state->undamped |= state->objective->damping() == 0;
    count_work(*state, state->work.factor / static_cast<double>(matrix.experts));
    job.stages.push_back({.tiles = strips->size(),
                          .run = [this, &row, state, strips](
                                     size_t i, size_t worker) { round_strip(row, *state, (*strips)[i], worker); },
                          .finish = [this, &row, state, &job, expert] { append_expert(row, state, job, expert + 1); }});
  });
}

void Pipeline::round_strip(const PlanRow& row, State& state, size_t index, size_t worker) {
  const RowTimer timer(state.nanoseconds);
  const formats::Layout& layout = *row.layout;
  Scratch& scratch = scratch_[worker];
  formats::Tile tile = formats::float_tile(load_rows(row, state, state.strips[index], scratch), scratch.floats);
  if (state.objective->damping() > 0 && !state.non_finite) {
    make_room(scratch.rounded, static_cast<size_t>(tile.rows * layout.cols));
    state.sums[index] =
        state.objective->round(layout, state.parameters, tile, scratch.workspace, scratch.rounded.data());
    formats::Tile rounded = tile;
    rounded.data = scratch.rounded.data();
    encode_tile(row, state, rounded, scratch);
  } else {
    encode_tile(row, state, tile, scratch);
  }
  measure(row, state, index, tile, scratch);
  advance(row, state, tile.rows);
  count_work(state, state.work.rounding * static_cast<double>(tile.rows) / static_cast<double>(layout.total_rows()));
}

void Pipeline::finish_feedback(const PlanRow& row, const std::shared_ptr<State>& state, Job& job) {
  FeedbackSums sums;
  for (const FeedbackSums& part : state->sums) sums.add(part);
  if (sums.plain > 0) state->measured.objective_ratio = sums.rounded / sums.plain;
  if (state->undamped || state->non_finite) {
    state->measured.note = state->undamped ? "plainly rounded: its second moments are singular"
                                           : "plainly rounded: the source holds values that are not finite";
    if (state->undamped)
      warn(row.name + ": " + state->measured.note + "; `--calibration` with other inputs may mend it");
  } else if (sums.rows_plain > 0) {
    state->measured.note = fmt::format("{} of {} rows stayed plainly rounded, which was better", sums.rows_plain,
                                       row.layout->total_rows());
  }
  if (sums.rows_rotated > 0 && state->measured.note.empty())
    state->measured.note = fmt::format("{} of {} rows came out better by way of the rotated basis", sums.rows_rotated,
                                       row.layout->total_rows());
  append_end(row, state, job);
}

}  // namespace mezzotint::convert
