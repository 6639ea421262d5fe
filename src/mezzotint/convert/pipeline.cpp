#include "mezzotint/convert/pipeline.h"

#include <algorithm>
#include <cstring>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/optimizers/bias_correction.h"
#include "mezzotint/convert/pipeline_state.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/decode.h"

namespace mezzotint::convert {
namespace {

// How much output may wait between two points from which a run can go on after a power failure.
constexpr uint64_t kSyncBytes = 4ull << 30;

}  // namespace

Pipeline::Pipeline(const Plan& plan, const checkpoint::Model& model, io::Writer& writer, Journal& journal,
                   size_t threads, bool measure)
    : plan_(plan),
      model_(model),
      writer_(writer),
      journal_(journal),
      tile_bytes_(tile_bytes_for(plan.options.max_memory, static_cast<int>(threads))),
      objective_memory_(objective_memory(plan.options.max_memory)),
      measure_(measure),
      scratch_(threads),
      done_(plan.rows.size(), 0),
      work_total_(total_work(plan)) {}

void Pipeline::skip(const std::vector<size_t>& rows) {
  for (const size_t row : rows) {
    if (row >= done_.size() || done_[row]) continue;
    done_[row] = 1;
    ++rows_done_;
    bytes_done_ += plan_.rows[row].bytes_in;
    work_done_ += row_work(plan_.rows[row]).total();
  }
}

std::unique_ptr<Job> Pipeline::next_job() {
  for (; next_row_ < plan_.rows.size(); ++next_row_) {
    if (done_[next_row_]) continue;
    switch (plan_.rows[next_row_].action) {
      case Action::correct:  // written with its weight
      case Action::drop:
        work_done_ += row_work(plan_.rows[next_row_]).total();
        bytes_done_ += plan_.rows[next_row_].bytes_in;
        row_finished(next_row_);
        continue;
      case Action::copy:
      case Action::keep_codes:
        return copy_job(next_row_++);
      case Action::rescale:
        return rescale_job(next_row_++);
      case Action::encode:
      case Action::reencode:
        return encode_job(next_row_++);
    }
  }
  return nullptr;
}

std::unique_ptr<Job> Pipeline::copy_job(size_t index) {
  const PlanRow& row = plan_.rows[index];
  const uint64_t bytes = model_.source().tensors()[row.source].bytes;
  auto job = std::make_unique<Job>();
  Stage& stage = job->stages.emplace_back();
  stage.tiles = static_cast<size_t>((bytes + tile_bytes_ - 1) / tile_bytes_);
  stage.run = [this, &row, bytes](size_t tile, size_t worker) {
    const uint64_t offset = tile * tile_bytes_;
    copy_tile(row, offset, std::min(tile_bytes_, bytes - offset), scratch_[worker]);
  };
  stage.finish = [this, &row, index] {
    if (row.action == Action::keep_codes) write_parameters(row, model_.parameters(model_.layers()[row.layer]));
    bytes_done_ += row.bytes_in - model_.source().tensors()[row.source].bytes;
    work_done_ += row_work(row).total();
    row_finished(index);
  };
  return job;
}

void Pipeline::copy_tile(const PlanRow& row, uint64_t offset, uint64_t size, Scratch& scratch) {
  make_room(scratch.source, size);
  model_.source().read(row.source, offset, scratch.source.data(), size);
  writer_.write(row.output, offset, scratch.source.data(), size);
  bytes_done_ += size;
}

std::unique_ptr<Job> Pipeline::encode_job(size_t index) {
  const PlanRow& row = plan_.rows[index];
  const formats::Layout& layout = *row.layout;
  const formats::Format& format = *layout.format;
  auto state = std::make_shared<State>();
  state->shape = tile_shape(model_, row, tile_bytes_);
  state->tiles = formats::row_tiles(layout, state->shape.rows);
  state->choose.effort = row.method.effort;
  if (row.method.weighs_columns) state->choose.column_weight = row.statistics->second_moment;
  if (plan_.options.rounding == Rounding::Mode::stochastic ||
      (row.keeps_format && !row.original && plan_.options.merge_rounding == MergeRounding::stochastic))
    state->rounding = Rounding::stochastic(plan_.options.seed, model_.source().tensors()[row.source].name);
  if (format.choose_plan != nullptr && !row.codes_only) state->plan = format.choose_plan(layout, state->choose);
  state->work = row_work(row);
  state->measured.name = row.name;
  state->measured.optimizer = row.method.label;
  const bool feedback = row.method.objective.has_value();
  if (measure_ && !feedback) state->meter = std::make_unique<LayerMeter>(state->tiles.size());

  auto job = std::make_unique<Job>();
  // Allocated when the row's turn comes, on a worker: next_job() runs under the scheduler's lock.
  job->stages.push_back({.tiles = 1, .run = [this, &row, state](size_t, size_t) {
                           state->parameters = formats::new_parameters(*row.layout);
                           state->stats.assign(state->plan.stats, 0.0f);
                           if (row.bias != checkpoint::Model::npos)
                             state->bias_correction.resize(static_cast<size_t>(row.layout->total_rows()));
                           if (row.action == Action::reencode) {
                             const checkpoint::Layer& layer = model_.layers()[row.layer];
                             state->source_parameters = model_.parameters(layer);
                             state->source_factors = checkpoint::column_factors(model_, layer);
                           } else if (row.codes_only) {
                             const float one = 1;
                             std::memcpy(state->parameters.tensors[1].data(), &one, sizeof one);
                           } else if (row.keeps_format) {
                             state->source_factors = checkpoint::column_factors(model_, model_.layers()[row.layer]);
                           }
                           open_merge(row, *state);
                           load_scale_adapters(row, *state);
                         }});
  if (row.smoothing) append_smoothing(row, state, *job);
  const int passes = state->plan.passes;
  const bool fused = passes > 0 && state->plan.fused && !feedback;
  state->sweeps = static_cast<uint64_t>(passes + (fused ? 0 : 1) + (row.smoothing ? 1 : 0));
  for (int pass = 0; pass < passes; ++pass) {
    Stage& stage = job->stages.emplace_back();
    const bool encodes = fused && pass == passes - 1;
    stage.tiles = state->tiles.size();
    stage.run = [this, &row, state, pass, encodes](size_t tile, size_t worker) {
      const RowTimer timer(state->nanoseconds);
      const auto [values, observed] = observed_rows(row, *state, state->tiles[tile], scratch_[worker]);
      if (row.layout->format->observe(*row.layout, state->choose, pass, observed, state->stats.data(),
                                      state->parameters))
        state->non_finite = true;
      if (encodes) {
        follow_scales_of(row, *state, &state->tiles[tile]);
        encode_tile(row, *state, values, scratch_[worker]);
        measure(row, *state, tile, values, scratch_[worker]);
      }
      advance(row, *state, values.rows);
    };
    const bool reduces = format.finish != nullptr && !(state->plan.fused && pass == passes - 1);
    stage.finish = [this, &row, state, pass, reduces, encodes] {
      if (reduces) row.layout->format->finish(*row.layout, state->choose, pass, state->stats.data(), state->parameters);
      if (!encodes) follow_scales_of(row, *state, nullptr);
    };
  }
  if (feedback) {
    append_feedback(row, state, *job);
    return job;
  }
  if (!fused)
    job->stages.push_back({.tiles = state->tiles.size(), .run = [this, &row, state](size_t tile, size_t worker) {
                             const RowTimer timer(state->nanoseconds);
                             const formats::Tile values = load_rows(row, *state, state->tiles[tile], scratch_[worker]);
                             encode_tile(row, *state, values, scratch_[worker]);
                             measure(row, *state, tile, values, scratch_[worker]);
                             advance(row, *state, values.rows);
                           }});
  append_end(row, state, *job);
  return job;
}

void Pipeline::append_end(const PlanRow& row, const std::shared_ptr<State>& state, Job& job) {
  job.stages.push_back({.tiles = 0, .run = {}, .finish = [this, &row, state] {
                          write_parameters(row, state->parameters);
                          if (row.smoothing) write_smoothing(row, *state);
                          if (row.bias != checkpoint::Model::npos)
                            write_bias(plan_.rows[row.bias], state->bias_correction);
                          work_done_ += std::max(0.0, state->work.total() - state->work_counted);
                          bytes_done_ += row.bytes_in - std::min<uint64_t>(row.bytes_in, state->counted);
                          if (state->non_finite) warn(row.name + std::string(kNotFinite));
                          if (state->meter) {
                            state->measured.errors = state->meter->result();
                            state->measured.seconds = static_cast<double>(state->nanoseconds) * 1e-9;
                            const std::scoped_lock lock(mutex_);
                            measured_.push_back(std::move(state->measured));
                          }
                          row_finished(static_cast<size_t>(&row - plan_.rows.data()));
                        }});
}

void Pipeline::advance(const PlanRow& row, State& state, int64_t rows) {
  const int64_t total = row.layout->total_rows();
  if (total == 0) return;
  const double share = static_cast<double>(rows) / static_cast<double>(total);
  const auto bytes =
      static_cast<uint64_t>(share * static_cast<double>(row.bytes_in) / static_cast<double>(state.sweeps));
  state.counted += bytes;
  bytes_done_ += bytes;
  count_work(state, share * state.work.bytes / static_cast<double>(state.sweeps));
}

void Pipeline::count_work(State& state, double seconds) {
  state.work_counted += seconds;
  work_done_ += seconds;
}

void Pipeline::measure(const PlanRow& row, State& state, size_t index, const formats::Tile& tile, Scratch& scratch) {
  const bool corrects = !state.bias_correction.empty();
  if (!state.meter && !corrects) return;
  const formats::Layout& layout = *row.layout;
  const auto count = static_cast<size_t>(tile.rows * layout.cols);
  std::vector<float> source(count), decoded(count);
  formats::float_tile(tile, source);
  layout.format->decode(layout, state.parameters, tile.row0, tile.rows, 0, layout.cols, scratch.codes.data(),
                        decoded.data(), layout.cols);
  if (layout.transformed) {  // errors are those of the weight, not of what its codes stand for
    layout.format->transform(layout, source.data(), tile.rows, true);
    layout.format->transform(layout, decoded.data(), tile.rows, true);
  }
  checkpoint::scale_columns(state.input_factors, static_cast<uint64_t>(tile.rows), source.data());
  checkpoint::scale_columns(state.input_factors, static_cast<uint64_t>(tile.rows), decoded.data());
  if (corrects)
    bias_correction(source.data(), decoded.data(), tile.rows, layout.cols, layout.cols,
                    row.statistics->channel_mean.data(), state.bias_correction.data() + tile.row0);
  if (state.meter) state.meter->add(index, source.data(), decoded.data(), count);
}

void Pipeline::write_bias(const PlanRow& bias, const std::vector<float>& correction) {
  const io::TensorInfo& info = model_.source().tensors()[bias.source];
  std::vector<std::byte> bytes(info.bytes);
  model_.source().read(bias.source, 0, bytes.data(), bytes.size());
  const auto count = static_cast<int64_t>(correction.size());
  std::vector<float> values(correction.size());
  kernel::cast({bytes.data(), info.dtype, 1, count, count}, DType::f32, values.data(), count);
  if (bias.merge != nullptr) plan_.merge->load(*bias.merge).apply({0, count}, values.data());
  for (size_t i = 0; i < values.size(); ++i) values[i] += correction[i];
  kernel::cast({values.data(), DType::f32, 1, count, count}, info.dtype, bytes.data(), count);
  writer_.write(bias.output, 0, bytes.data(), bytes.size());
}

formats::Tile Pipeline::load_rows(const PlanRow& row, const State& state, const formats::RowRange& range,
                                  Scratch& scratch) {
  const formats::Tile tile =
      row.merge != nullptr ? merged_rows(row, state, range, scratch) : read_rows(row, state, range, scratch);
  return formats::prepare_tile(*row.layout, smooth(state, tile, scratch), scratch.transformed);
}

formats::Tile Pipeline::read_rows(const PlanRow& row, const State& state, const formats::RowRange& range,
                                  Scratch& scratch) {
  const formats::Layout& layout = *row.layout;
  formats::Tile tile{.row0 = range.row0, .rows = range.rows, .col0 = 0, .cols = layout.cols, .row_stride = layout.cols};
  if (row.action == Action::reencode) {
    const checkpoint::Layer& layer = model_.layers()[row.layer];
    const formats::Layout& stored = layer.layout;
    make_room(scratch.source,
              static_cast<size_t>(stored.code_rows(std::min(range.rows, stored.rows)) * stored.row_bytes));
    make_room(scratch.values, static_cast<size_t>(range.rows * layout.cols));
    // What becomes plain bf16 needs no detour over float32, unless something is to be done to the values on the way.
    const bool straight = layout.tensors[0].dtype == DType::bf16 && !layout.format->quantized &&
                          state.rounding.mode == Rounding::Mode::nearest_even && state.source_factors.empty() &&
                          row.merge == nullptr;
    auto* narrow = reinterpret_cast<uint16_t*>(scratch.values.data());
    // A plain layout does not know experts: a tile of it may span several of the source's.
    for (int64_t done = 0; done < range.rows;) {
      const int64_t row0 = range.row0 + done;
      const int64_t rows = std::min(range.rows - done, stored.rows - row0 % stored.rows);
      model_.read_codes(layer, row0, rows, scratch.source.data());
      if (straight)
        formats::decode_rows(stored, state.source_parameters, row0, rows, scratch.source.data(),
                             narrow + done * layout.cols, scratch.transformed);
      else
        formats::decode_rows(stored, state.source_parameters, row0, rows, scratch.source.data(),
                             scratch.values.data() + done * layout.cols);
      done += rows;
    }
    checkpoint::scale_columns(state.source_factors, static_cast<uint64_t>(range.rows), scratch.values.data());
    tile.data = scratch.values.data();
    tile.dtype = straight ? DType::bf16 : DType::f32;
  } else {
    const OtherTensor from = source_of(model_, row);
    const io::TensorInfo& info = from.model->source().tensors()[from.tensor];
    const uint64_t pitch = static_cast<uint64_t>(layout.cols) * facts(info.dtype).bits / 8;
    const uint64_t size = static_cast<uint64_t>(range.rows) * pitch;
    make_room(scratch.source, size);
    from.model->source().read(from.tensor, static_cast<uint64_t>(range.row0) * pitch, scratch.source.data(), size);
    tile.data = scratch.source.data();
    tile.dtype = info.dtype;
    if (is_decoded_source(info.dtype)) {
      constexpr float kOne = 1.0f;
      make_room(scratch.values, static_cast<size_t>(range.rows * layout.cols));
      kernel::decode_fp8(reinterpret_cast<const uint8_t*>(scratch.source.data()), info.dtype, range.rows, layout.cols,
                         layout.cols, kernel::Scales::scalar(&kOne), scratch.values.data(), layout.cols);
      tile.data = scratch.values.data();
      tile.dtype = DType::f32;
    }
  }
  return tile;
}

void Pipeline::encode_tile(const PlanRow& row, const State& state, const formats::Tile& tile, Scratch& scratch) {
  const formats::Layout& layout = *row.layout;
  const auto size = static_cast<size_t>(tile.rows * layout.row_bytes);
  make_room(scratch.codes, size);
  std::fill_n(scratch.codes.begin(), size, std::byte{0});
  layout.format->encode(layout, state.parameters, tile, state.rounding, scratch.codes.data());
  const auto stored_row = static_cast<uint64_t>(layout.stored_row(tile.row0));
  writer_.write(row.output, stored_row * static_cast<uint64_t>(layout.row_bytes), scratch.codes.data(), size);
}

void Pipeline::write_parameters(const PlanRow& row, const formats::Parameters& parameters) {
  if (row.codes_only) return;
  for (size_t i = 1; i < parameters.tensors.size(); ++i)
    writer_.write(row.output + i, 0, parameters.tensors[i].data(), parameters.tensors[i].size());
  size_t next = row.output + row.layout->tensors.size();
  if (row.has_marker) writer_.write(next++, 0, row.marker.data(), row.marker.size());
  if (row.input_scale && !row.smoothing) writer_.write(next, 0, &*row.input_scale, sizeof(float));
}

void Pipeline::row_finished(size_t index) {
  const PlanRow& row = plan_.rows[index];
  journal_.row_done(index);
  {
    const std::scoped_lock lock(mutex_);
    ++rows_done_;
    current_ = row.name;
  }
  if (unsynced_.fetch_add(row.bytes_out) + row.bytes_out < kSyncBytes) return;
  const std::unique_lock lock(sync_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  unsynced_ = 0;
  const size_t recorded = journal_.recorded();
  writer_.sync();
  journal_.synced(recorded);
}

Progress Pipeline::progress() const {
  const std::scoped_lock lock(mutex_);
  Progress now;
  now.bytes_done = std::min<uint64_t>(bytes_done_.load(), plan_.bytes_in);
  now.bytes_total = plan_.bytes_in;
  now.work_done = std::min(work_done_.load(), work_total_);
  now.work_total = work_total_;
  now.rows_done = rows_done_;
  now.rows_total = plan_.rows.size();
  now.current = current_;
  return now;
}

void Pipeline::warn(std::string text) {
  const std::scoped_lock lock(mutex_);
  warnings_.push_back(std::move(text));
}

std::vector<std::string> Pipeline::take_warnings() {
  const std::scoped_lock lock(mutex_);
  return std::move(warnings_);
}

std::vector<MeasuredLayer> Pipeline::take_measured() {
  const std::scoped_lock lock(mutex_);
  return std::move(measured_);
}

}  // namespace mezzotint::convert
