#pragma once
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "mezzotint/adapter/stack.h"
#include "mezzotint/convert/methods.h"
#include "mezzotint/convert/optimizers/objective.h"
#include "mezzotint/convert/pipeline.h"
#include "mezzotint/formats/driver.h"

/// What pipeline.cpp and pipeline_feedback.cpp share.
namespace mezzotint::convert {

/// Makes room for `size` elements, no more; what is in there is lost.
template <class T>
void make_room(std::vector<T>& buffer, size_t size) {
  if (buffer.size() >= size) return;
  buffer = {};  // first, so that the old and the new one are never held together
  buffer.resize(size);
}

/// What a row holds while it is encoded.
struct Pipeline::State {
  TileShape shape;
  std::vector<formats::RowRange> tiles;
  formats::Parameters parameters;         // of the output
  formats::Parameters source_parameters;  // of a quantized source
  std::vector<float> source_factors;      // smoothing factors of a quantized source
  std::vector<float> stats;
  formats::ChooseOptions choose;
  formats::ChoosePlan plan{.passes = 0};
  Rounding rounding;
  std::atomic<bool> non_finite{false};
  uint64_t sweeps = 1;               // over the weight
  std::atomic<uint64_t> counted{0};  // of the row's bytes, in the progress
  std::atomic<int64_t> nanoseconds{0};
  RowWork work;
  std::atomic<double> work_counted{0};
  std::vector<float> bias_correction;  // by row of the weight

  // Merging.
  std::map<const PlanRow*, adapter::Stack> stacks;  // of this row and of others that it looks at
  std::vector<float> basis;                         // of the adapters' input space (merging/feedback.h)
  std::vector<adapter::Stack> scale_stacks;         // all that scales are to allow for, and each alone

  // Smoothing.
  std::mutex column_mutex;
  std::vector<float> column_amax;     // of the weight
  std::vector<float> input_factors;   // what loaders multiply inputs by; empty until they are known
  std::vector<float> weight_factors;  // what columns of the weight are multiplied by: 1 / input_factors
  std::vector<float> column_weight;   // of choose

  // Rounding with feedback.
  std::vector<formats::RowRange> strips;
  std::unique_ptr<Objective> objective;  // of the expert in work
  io::platform::File scratch;
  std::vector<FeedbackSums> sums;  // by strip
  std::vector<float> moments;      // X'X / T of a rotated layer, rotated
  bool undamped = false;           // an expert's Hessian could not be factored

  std::unique_ptr<LayerMeter> meter;
  MeasuredLayer measured;
};

/// Adds the time until its end to a state.
class RowTimer {
 public:
  explicit RowTimer(std::atomic<int64_t>& sum) : sum_(sum), start_(std::chrono::steady_clock::now()) {}
  ~RowTimer() {
    sum_ += std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::atomic<int64_t>& sum_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace mezzotint::convert
