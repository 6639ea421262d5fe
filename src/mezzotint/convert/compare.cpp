#include "mezzotint/convert/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <optional>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/model_entries.h"
#include "mezzotint/convert/smoothing/rescaled.h"
#include "mezzotint/formats/parallel.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;
using checkpoint::WeightValues;

// 512 Ki elements: 2 MiB of floats per side and thread.
constexpr uint64_t kRunElements = 1 << 19;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Comparer {
 public:
  Comparer(const Model& a, const Model& b, int threads, const std::function<void(uint64_t, uint64_t)>& progress)
      : a_(a), b_(b), threads_(threads), progress_(progress), rescaled_(rescaled_tensors(a, b)) {}

  Comparison run() {
    const ModelEntries in_a = entries_of(a_), in_b = entries_of(b_);
    struct Pair {
      ModelEntry a, b;
    };
    std::vector<Pair> pairs;
    for (const auto& [name, entry] : in_a) {
      const auto other = in_b.find(name);
      if (other == in_b.end())
        result_.only_in_a.push_back(name);
      else if (entry.shape(a_) != other->second.shape(b_))
        result_.shape_differs.push_back(name);
      else
        pairs.push_back({entry, other->second});
    }
    for (const auto& [name, entry] : in_b)
      if (in_a.find(name) == in_a.end()) result_.only_in_b.push_back(name);

    for (const Pair& pair : pairs) bytes_total_ += pair.a.info(a_).bytes;
    for (const Pair& pair : pairs) {
      const uint64_t before = bytes_done_;
      compare_pair(pair.a, pair.b);
      bytes_done_ = before + pair.a.info(a_).bytes;
      report();
    }
    finish();
    return std::move(result_);
  }

 private:
  void report() const {
    if (progress_) progress_(bytes_done_, bytes_total_);
  }

  void compare_pair(const ModelEntry& a, const ModelEntry& b) {
    if (const uint64_t same = identical_tensors(a_, a, b_, b); same > 0) {
      result_.identical_tensors += same;
      return;
    }
    LayerError error;
    error.name = a.layer != nullptr ? a.layer->name : b.layer != nullptr ? b.layer->name : a.info(a_).name;
    error.from = a.label(a_);
    error.to = b.label(b_);
    error.elements = element_count(a.shape(a_)).value_or(0);
    const auto left = a.values(a_);
    auto right = b.values(b_);
    if (!left || !right) {  // no numbers to compare (sub-byte and complex dtypes): different is all that can be said
      error.non_finite = error.elements;
      error.relative_error = kInfinity;
      error.sqnr_db = -kInfinity;
      error.cosine = 0;
      result_.layers.push_back(std::move(error));
      return;
    }
    if (const auto factors = rescaled_.find(b.info(b_).name); factors != rescaled_.end()) {
      right->rescale(factors->second);
      ++result_.rescaled;
    }
    error.errors = measure(*left, *right);
    error.relative_error = error.errors.relative_error();
    error.sqnr_db = error.errors.sqnr_db();
    error.max_error = error.errors.max_error;
    error.cosine = error.errors.cosine();
    error.non_finite = error.errors.non_finite;
    total_.add(error.errors);
    result_.layers.push_back(std::move(error));
  }

  MeasuredErrors measure(const WeightValues& left, const WeightValues& right) {
    const auto runs = checkpoint::cut_runs(left, &right, kRunElements);
    LayerMeter meter(runs.size());
    std::mutex mutex;
    formats::parallel_for(runs.size(), threads_, [&](size_t i) {
      const auto& run = runs[i];
      std::vector<float> x(run.count), y(run.count);
      std::vector<std::byte> bytes;
      left.read(run.first, run.count, x.data(), bytes);
      right.read(run.first, run.count, y.data(), bytes);
      meter.add(i, x.data(), y.data(), run.count);
      const std::lock_guard lock(mutex);
      bytes_done_ += left.stored_bytes(run.count);
      report();
    });
    return meter.result();
  }

  void finish() {
    auto& layers = result_.layers;
    std::stable_sort(layers.begin(), layers.end(),
                     [](const LayerError& x, const LayerError& y) { return x.relative_error > y.relative_error; });
    result_.worst_sqnr_db = kInfinity;
    for (const LayerError& layer : layers) {
      result_.mean_relative_error += layer.relative_error / static_cast<double>(layers.size());
      result_.worst_sqnr_db = std::min(result_.worst_sqnr_db, layer.sqnr_db);
    }
    result_.relative_error = total_.relative_error();
  }

  const Model& a_;
  const Model& b_;
  int threads_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  std::map<std::string, std::vector<float>, std::less<>> rescaled_;
  Comparison result_;
  MeasuredErrors total_;
  uint64_t bytes_done_ = 0, bytes_total_ = 0;
};

}  // namespace

Comparison compare(const Model& a, const Model& b, int threads,
                   const std::function<void(uint64_t done, uint64_t total)>& progress) {
  return Comparer(a, b, threads, progress).run();
}

}  // namespace mezzotint::convert
