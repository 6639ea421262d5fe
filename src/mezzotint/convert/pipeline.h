#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mezzotint/adapter/stack.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/journal.h"
#include "mezzotint/convert/optimizers/feedback_rounder.h"
#include "mezzotint/convert/scheduler.h"
#include "mezzotint/convert/tiles.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/io/writer.h"

/// Turns plan rows into jobs of tiles (room-internal; execute() drives it).
namespace mezzotint::convert {

class Pipeline {
 public:
  Pipeline(const Plan& plan, const checkpoint::Model& model, io::Writer& writer, Journal& journal, size_t threads,
           bool measure);

  /// The next row that is not done yet, as a job; null at the end.
  std::unique_ptr<Job> next_job();
  void skip(const std::vector<size_t>& rows);

  Progress progress() const;
  std::vector<std::string> take_warnings();
  std::vector<MeasuredLayer> take_measured();

  /// Rows in work at a time. One more than there are threads: while the last tiles of a row finish, the next one is
  /// being read. But Hessians are large: a plan that needs them has its rows done one by one.
  static size_t window(const Plan& plan, int threads);
  /// Bytes that rounding a row with feedback holds, besides what every row does; its Hessian counts where it is at most
  /// `tiles_in_memory` (beyond, it lies in a scratch file).
  static uint64_t feedback_bytes(const PlanRow& row, size_t threads, uint64_t tiles_in_memory);
  /// Of a bound for all buffers, what the tiles of Hessians may take before they go to a scratch file.
  static uint64_t objective_memory(uint64_t max_memory) { return max_memory / 2; }

 private:
  struct Scratch {
    std::vector<std::byte> source, codes;
    std::vector<float> values, transformed;
    std::vector<float> floats, rounded;  // of strips
    std::vector<float> observed;         // what scales are chosen from, where that is not the tile itself
    FeedbackRounder::Workspace workspace;
  };
  struct State;  // of a row that is being encoded

  std::unique_ptr<Job> copy_job(size_t row);
  std::unique_ptr<Job> encode_job(size_t row);
  void copy_tile(const PlanRow& row, uint64_t offset, uint64_t size, Scratch& scratch);
  /// The rows as observe and encode want them, in the scratch.
  formats::Tile load_rows(const PlanRow& row, const State& state, const formats::RowRange& range, Scratch& scratch);
  void encode_tile(const PlanRow& row, const State& state, const formats::Tile& tile, Scratch& scratch);
  /// Compares a tile with its codes, which encode_tile left in the scratch: for the report and for the bias.
  void measure(const PlanRow& row, State& state, size_t index, const formats::Tile& tile, Scratch& scratch);
  void write_bias(const PlanRow& bias, const std::vector<float>& correction);
  void count_work(State& state, double seconds);
  /// Counts a share of the row as done: some rows of one of its sweeps.
  void advance(const PlanRow& row, State& state, int64_t rows);
  void append_end(const PlanRow& row, const std::shared_ptr<State>& state, Job& job);

  /// The same before adapters and smoothing: float32 in scratch.values, or as the source has them.
  formats::Tile read_rows(const PlanRow& row, const State& state, const formats::RowRange& range, Scratch& scratch);

  // pipeline_merging.cpp
  /// Reads the factors of what is merged into a row.
  void load_adapters(const PlanRow& row, State& state);
  void open_merge(const PlanRow& row, State& state);
  formats::Tile merged_rows(const PlanRow& row, const State& state, const formats::RowRange& range, Scratch& scratch);
  void read_grown(const PlanRow& row, Scratch& scratch);
  /// Lets scales that were chosen for a merged layer follow the stored ones: all, or those of some rows.
  void follow_scales_of(const PlanRow& row, State& state, const formats::RowRange* rows) const;

  // pipeline_lora.cpp
  /// Reads the factors of adapters that scales are to allow for.
  void load_scale_adapters(const PlanRow& row, State& state) const;
  struct ObservedRows {
    formats::Tile values;    ///< as load_rows() gives them
    formats::Tile observed;  ///< for Format::observe
  };
  ObservedRows observed_rows(const PlanRow& row, const State& state, const formats::RowRange& range, Scratch& scratch);
  formats::Tile adapted_rows(const PlanRow& row, const State& state, const adapter::Stack& stack,
                             const formats::RowRange& range, Scratch& scratch);
  /// Finds the space of inputs that rounding is to spare.
  void load_input_basis(const PlanRow& row, State& state) const;

  // pipeline_smoothing.cpp
  /// Finds the factors of a row of a layer or of a norm.
  void append_smoothing(const PlanRow& row, const std::shared_ptr<State>& state, Job& job);
  std::unique_ptr<Job> rescale_job(size_t row);
  /// The tile as the layer's smoothed inputs want it, in scratch.values; itself where there are no factors (yet).
  formats::Tile smooth(const State& state, const formats::Tile& tile, Scratch& scratch) const;
  void write_smoothing(const PlanRow& row, const State& state);

  // pipeline_feedback.cpp
  void append_feedback(const PlanRow& row, const std::shared_ptr<State>& state, Job& job);
  void append_expert(const PlanRow& row, const std::shared_ptr<State>& state, Job& job, int64_t expert);
  void round_strip(const PlanRow& row, State& state, size_t index, size_t worker);
  void finish_feedback(const PlanRow& row, const std::shared_ptr<State>& state, Job& job);

  void write_parameters(const PlanRow& row, const formats::Parameters& parameters);
  void row_finished(size_t row);
  void warn(std::string text);

  const Plan& plan_;
  const checkpoint::Model& model_;
  io::Writer& writer_;
  Journal& journal_;
  uint64_t tile_bytes_, objective_memory_;
  bool measure_;
  std::vector<Scratch> scratch_;  // one per worker
  std::vector<char> done_;        // by row
  double work_total_;
  size_t next_row_ = 0;
  std::atomic<uint64_t> bytes_done_{0};
  std::atomic<double> work_done_{0};
  std::atomic<uint64_t> unsynced_{0};
  std::mutex sync_mutex_;
  mutable std::mutex mutex_;  // guards the next four
  size_t rows_done_ = 0;
  std::string current_;
  std::vector<std::string> warnings_;
  std::vector<MeasuredLayer> measured_;
};

}  // namespace mezzotint::convert
