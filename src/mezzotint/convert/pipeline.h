#pragma once
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/journal.h"
#include "mezzotint/convert/scheduler.h"
#include "mezzotint/convert/tiles.h"
#include "mezzotint/io/writer.h"

/// Turns plan rows into jobs of tiles (room-internal; execute() drives it).
namespace mezzotint::convert {

class Pipeline {
 public:
  Pipeline(const Plan& plan, const checkpoint::Model& model, io::Writer& writer, Journal& journal, size_t threads);

  /// The next row that is not done yet, as a job; null at the end.
  std::unique_ptr<Job> next_job();
  void skip(const std::vector<size_t>& rows);

  Progress progress() const;
  std::vector<std::string> take_warnings();

 private:
  struct Scratch {
    std::vector<std::byte> source, codes;
    std::vector<float> values, transformed;
  };
  struct State;  // of a row that is being encoded

  std::unique_ptr<Job> copy_job(size_t row);
  std::unique_ptr<Job> encode_job(size_t row);
  void copy_tile(const PlanRow& row, uint64_t offset, uint64_t size, Scratch& scratch);
  formats::Tile load_tile(const PlanRow& row, const State& state, size_t tile, Scratch& scratch);
  void encode_tile(const PlanRow& row, const State& state, const formats::Tile& tile, Scratch& scratch);
  void write_parameters(const PlanRow& row, const formats::Parameters& parameters);
  void row_finished(size_t row);
  void warn(std::string text);

  const Plan& plan_;
  const checkpoint::Model& model_;
  io::Writer& writer_;
  Journal& journal_;
  uint64_t tile_bytes_;
  std::vector<Scratch> scratch_;  // one per worker
  std::vector<char> done_;        // by row
  size_t next_row_ = 0;
  std::atomic<uint64_t> bytes_done_{0};
  std::atomic<uint64_t> unsynced_{0};
  std::mutex sync_mutex_;
  mutable std::mutex mutex_;  // guards the next three
  size_t rows_done_ = 0;
  std::string current_;
  std::vector<std::string> warnings_;
};

}  // namespace mezzotint::convert
