#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "mezzotint/convert/measured_layer.h"
#include "mezzotint/convert/plan.h"

namespace mezzotint::convert {

struct Progress {
  uint64_t bytes_done = 0;  ///< of the input
  uint64_t bytes_total = 0;
  double work_done = 0, work_total = 0;  ///< estimated seconds of one core (row_work): for the time left
  size_t rows_done = 0, rows_total = 0;
  std::string current;  ///< name of the row that finished last
};

struct ExecuteOptions {
  bool overwrite = false;
  bool resume = false;
  int threads = 0;       ///< 0 = all cores
  bool measure = false;  ///< compare what is written with the source, as a by-product (Outcome::layers)
  std::function<void(const Progress&)>
      progress;                               ///< may be empty; called from one thread at a time, at most ~20x a second
  const std::atomic<bool>* cancel = nullptr;  ///< set (by a signal handler) to stop cleanly; the run can be resumed
};

/// After a layer's name: the warning about a source that holds them. Reports count them and say it once.
inline constexpr std::string_view kNotFinite = ": the source holds values that are not finite";

struct Outcome {
  bool cancelled = false;  ///< the .partial and its journal are left for --resume
  double seconds = 0;
  uint64_t bytes_in = 0, bytes_out = 0;
  size_t rows_resumed = 0;            ///< rows that an earlier run had finished
  std::vector<std::string> warnings;  ///< e.g. non-finite values in the source, by layer
  std::vector<MeasuredLayer> layers;  ///< with ExecuteOptions::measure, of rows that this run encoded; in any order
};

/// Threads that `wanted` stands for: itself, or all cores for 0.
int thread_count(int wanted);

/// Runs a plan: a bounded, parallel, resumable pipeline (read, choose, encode, write). The bytes depend on the plan and
/// the input alone, not on threads or interruptions.
Outcome execute(const Plan& plan, const checkpoint::Model& model, const ExecuteOptions& options);

}  // namespace mezzotint::convert
