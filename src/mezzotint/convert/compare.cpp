#include "mezzotint/convert/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <optional>

#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/formats/parallel.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;
using checkpoint::WeightValues;

// 512 Ki elements: 2 MiB of floats per side and thread.
constexpr uint64_t kRunElements = 1 << 19;
constexpr uint64_t kChunkBytes = 4 << 20;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A weight or any other tensor that stands for itself. Parameters and markers belong to their layer's weight.
struct Entry {
  size_t tensor = 0;
  const Layer* layer = nullptr;
};

using Entries = std::map<std::string, Entry, std::less<>>;

Entries entries_of(const Model& model) {
  Entries entries;
  const auto& tensors = model.source().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    Entry entry{i, nullptr};
    std::string key = tensors[i].name;
    switch (model.role(i)) {
      case Role::codes: {
        const Layer& layer = model.layers()[model.layer_of(i)];
        if (layer.consistent) entry.layer = &layer;
        break;
      }
      case Role::parameter:
      case Role::marker:
      case Role::file_marker:
        continue;
      case Role::activation: {
        const Layer& owner = model.layers()[model.layer_of(i)];
        if (owner.consistent && owner.smoothed && i == *owner.pre_quant_scale) continue;  // a factor of the weight
        // "scale_input" and "input_scale" are the same thing.
        const auto [layer, suffix] = checkpoint::split_name(tensors[i].name);
        key = std::string(layer) + "." + std::string(checkpoint::canonical_suffix(suffix));
        break;
      }
      case Role::plain:
      case Role::orphan:
        break;
    }
    entries.emplace(std::move(key), entry);
  }
  return entries;
}

class Comparer {
 public:
  Comparer(const Model& a, const Model& b, int threads, const std::function<void(uint64_t, uint64_t)>& progress)
      : a_(a), b_(b), threads_(threads), progress_(progress) {}

  Comparison run() {
    const Entries in_a = entries_of(a_), in_b = entries_of(b_);
    struct Pair {
      Entry a, b;
    };
    std::vector<Pair> pairs;
    for (const auto& [name, entry] : in_a) {
      const auto other = in_b.find(name);
      if (other == in_b.end())
        result_.only_in_a.push_back(name);
      else if (shape(a_, entry) != shape(b_, other->second))
        result_.shape_differs.push_back(name);
      else
        pairs.push_back({entry, other->second});
    }
    for (const auto& [name, entry] : in_b)
      if (in_a.find(name) == in_a.end()) result_.only_in_b.push_back(name);

    for (const Pair& pair : pairs) bytes_total_ += info(a_, pair.a.tensor).bytes;
    for (const Pair& pair : pairs) {
      const uint64_t before = bytes_done_;
      compare_pair(pair.a, pair.b);
      bytes_done_ = before + info(a_, pair.a.tensor).bytes;
      report();
    }
    finish();
    return std::move(result_);
  }

 private:
  static const io::TensorInfo& info(const Model& model, size_t tensor) { return model.source().tensors()[tensor]; }

  static const Shape& shape(const Model& model, const Entry& entry) {
    return entry.layer != nullptr ? entry.layer->layout.shape : info(model, entry.tensor).shape;
  }

  static std::string label(const Model& model, const Entry& entry) {
    if (entry.layer == nullptr) return std::string(name(info(model, entry.tensor).dtype));
    return formats::Selection{entry.layer->layout.format, entry.layer->layout.options}.label();
  }

  void report() const {
    if (progress_) progress_(bytes_done_, bytes_total_);
  }

  bool same_bytes(size_t a, size_t b) const {
    const uint64_t bytes = info(a_, a).bytes;
    if (info(a_, a).dtype != info(b_, b).dtype || bytes != info(b_, b).bytes) return false;
    std::vector<std::byte> left(std::min(bytes, kChunkBytes)), right(left.size());
    for (uint64_t at = 0; at < bytes; at += kChunkBytes) {
      const size_t size = std::min(bytes - at, kChunkBytes);
      a_.source().read(a, at, left.data(), size);
      b_.source().read(b, at, right.data(), size);
      if (std::memcmp(left.data(), right.data(), size) != 0) return false;
    }
    return true;
  }

  // Same codes and same parameters; returns the number of tensors that are equal, 0 if anything differs.
  uint64_t identical(const Entry& a, const Entry& b) const {
    if ((a.layer == nullptr) != (b.layer == nullptr)) return 0;
    if (a.layer == nullptr) return same_bytes(a.tensor, b.tensor) ? 1 : 0;
    const auto& left = *a.layer;
    const auto& right = *b.layer;
    if (left.layout.format != right.layout.format || !(left.layout.options == right.layout.options) ||
        left.parts.size() != right.parts.size() || left.smoothed != right.smoothed)
      return 0;
    if (left.smoothed && !same_bytes(*left.pre_quant_scale, *right.pre_quant_scale)) return 0;
    // Parameters first: they are small and differ wherever codes do.
    for (size_t i = left.parts.size(); i-- > 0;)
      if (!same_bytes(left.parts[i], right.parts[i])) return 0;
    return left.parts.size() + (left.smoothed ? 1 : 0);
  }

  static std::optional<WeightValues> values(const Model& model, const Entry& entry) {
    if (entry.layer != nullptr) return WeightValues(model, *entry.layer);
    if (!checkpoint::is_readable(info(model, entry.tensor).dtype)) return std::nullopt;
    return WeightValues(model, entry.tensor);
  }

  void compare_pair(const Entry& a, const Entry& b) {
    if (const uint64_t same = identical(a, b); same > 0) {
      result_.identical_tensors += same;
      return;
    }
    LayerError error;
    error.name = a.layer != nullptr ? a.layer->name : b.layer != nullptr ? b.layer->name : info(a_, a.tensor).name;
    error.from = label(a_, a);
    error.to = label(b_, b);
    error.elements = element_count(shape(a_, a)).value_or(0);
    const auto left = values(a_, a);
    const auto right = values(b_, b);
    if (!left || !right) {  // no numbers to compare (sub-byte and complex dtypes): different is all that can be said
      error.non_finite = error.elements;
      error.relative_error = kInfinity;
      error.sqnr_db = -kInfinity;
      error.cosine = 0;
      result_.layers.push_back(std::move(error));
      return;
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
