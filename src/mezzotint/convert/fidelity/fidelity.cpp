#include "mezzotint/convert/fidelity/fidelity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/model_entries.h"
#include "mezzotint/convert/smoothing/rescaled.h"
#include "mezzotint/formats/parallel.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;
using checkpoint::Run;
using checkpoint::WeightValues;

// 512 Ki elements: 2 MiB of floats for each of three buffers of a thread.
constexpr uint64_t kFidelityElements = 1 << 19;

struct DeltaSums {
  double weight = 0, delta = 0, product = 0, rest = 0;  // ||W||^2, ||D||^2, <E, D>, ||E - D||^2
  uint64_t non_finite = 0;

  void add(const DeltaSums& other) {
    weight += other.weight;
    delta += other.delta;
    product += other.product;
    rest += other.rest;
    non_finite += other.non_finite;
  }
  void add(float before, float merged, float after) {
    if (!std::isfinite(before) || !std::isfinite(merged) || !std::isfinite(after)) {
      ++non_finite;
      return;
    }
    const double d = double{merged} - double{before}, e = double{after} - double{before};
    weight += double{before} * double{before};
    delta += d * d;
    product += e * d;
    rest += (e - d) * (e - d);
  }
  double gain() const { return delta > 0 ? product / delta : 0; }
  double residual() const { return delta > 0 ? std::sqrt(rest / delta) : 0; }
};

std::string listed_names(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > kMost ? text + fmt::format(" and {} more", names.size() - kMost) : text;
}

class FidelityMeter {
 public:
  FidelityMeter(const Model& base, const Model& output, const FidelityOptions& options)
      : base_(base), output_(output), options_(options) {}

  Fidelity run() {
    ConvertOptions merging;
    merging.merge_loras = options_.loras;
    merging.merge_dampen = options_.dampen;
    merging.merge_strict = options_.strict;
    const Merge merge(base_, merging, result_.notes, result_.warnings);
    const ModelEntries in_base = entries_of(base_), in_output = entries_of(output_);
    rescaled_ = rescaled_tensors(base_, output_);
    for (const auto& [name, entry] : in_base)
      if (merge.tensors().contains(entry.tensor)) total_ += entry.info(base_).bytes;
    for (const auto& [name, entry] : in_base) {
      const auto found = merge.tensors().find(entry.tensor);
      if (found == merge.tensors().end()) continue;
      const auto other = in_output.find(name);
      measure(name, entry, other == in_output.end() ? nullptr : &other->second, found->second, merge);
    }
    finish();
    return std::move(result_);
  }

 private:
  void measure(const std::string& name, const ModelEntry& base, const ModelEntry* output, const MergedTensor& merged,
               const Merge& merge) {
    TensorFidelity tensor{.name = checkpoint::layer_name(name),
                          .from = base.label(base_),
                          .to = output != nullptr ? output->label(output_) : "",
                          .shape = merged.after,
                          .patches = merged.patches.size()};
    const uint64_t bytes = base.info(base_).bytes;
    tensor.reason = measure(base, output, merged, merge, tensor);
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_);
    result_.tensors.push_back(std::move(tensor));
  }

  /// Returns why it cannot, or "".
  std::string measure(const ModelEntry& base, const ModelEntry* output, const MergedTensor& merged, const Merge& merge,
                      TensorFidelity& tensor) {
    if (output == nullptr) return "the other model has no such tensor";
    if (output->shape(output_) != merged.after) return "the other model's has another shape";
    const auto before = base.values(base_);
    auto after = output->values(output_);
    if (!before || !after) return "its values cannot be read";
    if (const auto factors = rescaled_.find(output->info(output_).name); factors != rescaled_.end())
      after->rescale(factors->second);
    const adapter::Stack stack = merge.load(merged);
    const DeltaSums sums = merged.before == merged.after ? stream(*before, *after, merged, stack)
                                                         : measure_grown(*before, *after, merged, stack);
    tensor.non_finite = sums.non_finite;
    if (sums.delta == 0) return "the adapters change nothing in it";
    tensor.delta = sums.weight > 0 ? std::sqrt(sums.delta / sums.weight) : 0;
    tensor.gain = sums.gain();
    tensor.residual = sums.residual();
    all_.add(sums);
    return "";
  }

  DeltaSums stream(const WeightValues& before, const WeightValues& after, const MergedTensor& merged,
                   const adapter::Stack& stack) const {
    const auto cols = static_cast<uint64_t>(merged.cols()), unit = static_cast<uint64_t>(merged.granule) * cols;
    const uint64_t step =
        std::lcm(unit, std::lcm(std::max<uint64_t>(before.granule(), 1), std::max<uint64_t>(after.granule(), 1)));
    // Runs that make whole granules are worked on together: of banks, formats cut runs at experts, too.
    std::vector<std::vector<Run>> blocks;
    bool whole = true;
    for (const Run& run :
         checkpoint::cut_runs(before, &after, std::max<uint64_t>(kFidelityElements / step, 1) * step)) {
      if (whole) blocks.emplace_back();
      blocks.back().push_back(run);
      whole = (run.first + run.count) % unit == 0;
    }
    std::vector<DeltaSums> sums(blocks.size());
    formats::parallel_for(blocks.size(), options_.threads, [&](size_t block) {
      const std::vector<Run>& runs = blocks[block];
      const uint64_t first = runs.front().first, count = runs.back().first + runs.back().count - first;
      std::vector<float> w(count), out(count);
      std::vector<std::byte> bytes;
      for (const Run& run : runs) {
        before.read(run.first, run.count, w.data() + (run.first - first), bytes);
        after.read(run.first, run.count, out.data() + (run.first - first), bytes);
      }
      std::vector<float> applied = w;
      for (uint64_t at = 0; at < count; at += unit)
        stack.apply(
            {static_cast<int64_t>((first + at) / cols), static_cast<int64_t>(std::min(unit, count - at) / cols)},
            applied.data() + at);
      for (uint64_t i = 0; i < count; ++i) sums[block].add(w[i], applied[i], out[i]);
    });
    DeltaSums all;
    for (const DeltaSums& part : sums) all.add(part);
    return all;
  }

  static std::vector<float> read_whole(const WeightValues& values) {
    std::vector<float> all(values.elements());
    std::vector<std::byte> bytes;
    for (const Run& run : checkpoint::cut_runs(values, nullptr, kFidelityElements))
      values.read(run.first, run.count, all.data() + run.first, bytes);
    return all;
  }

  static DeltaSums measure_grown(const WeightValues& before, const WeightValues& after, const MergedTensor& merged,
                                 const adapter::Stack& stack) {
    const std::vector<float> w = adapter::grow(read_whole(before), merged.before, merged.after),
                             out = read_whole(after);
    std::vector<float> applied = w;
    stack.apply({0, merged.rows()}, applied.data());
    DeltaSums sums;
    for (size_t i = 0; i < w.size(); ++i) sums.add(w[i], applied[i], out[i]);
    return sums;
  }

  void finish() {
    std::stable_sort(result_.tensors.begin(), result_.tensors.end(),
                     [](const TensorFidelity& a, const TensorFidelity& b) {
                       return a.measured() != b.measured() ? a.measured() : a.measured() && a.gain < b.gain;
                     });
    for (const TensorFidelity& tensor : result_.tensors) {
      result_.measured += tensor.measured();
      result_.vanished += tensor.vanished();
    }
    result_.gain = all_.gain();
    result_.residual = all_.residual();
  }

  const Model& base_;
  const Model& output_;
  const FidelityOptions& options_;
  std::map<std::string, std::vector<float>, std::less<>> rescaled_;
  DeltaSums all_;
  uint64_t done_ = 0, total_ = 0;
  Fidelity result_;
};

}  // namespace

bool TensorFidelity::vanished() const {
  return measured() && gain < kVanishedGain;
}

Fidelity measure_fidelity(const Model& base, const Model& output, const FidelityOptions& options) {
  if (options.loras.empty()) throw Error({.name = "bad-option", .problem = "there is no adapter to look for"});
  return FidelityMeter(base, output, options).run();
}

void add_fidelity(Report& report, const Fidelity& fidelity) {
  std::map<std::string_view, const TensorFidelity*> by_name;
  std::vector<std::string> lost;
  for (const TensorFidelity& tensor : fidelity.tensors) {
    by_name.emplace(tensor.name, &tensor);
    if (tensor.vanished()) lost.push_back(tensor.name);
  }
  for (ReportLayer& layer : report.layers) {
    const auto found = by_name.find(layer.name);
    if (found == by_name.end()) continue;
    const TensorFidelity& tensor = *found->second;
    layer.note +=
        (layer.note.empty() ? "" : "; ") +
        (tensor.measured() ? fmt::format("adapters: gain {:.3f}, residual {:.3f}", tensor.gain, tensor.residual)
                           : "adapters: " + tensor.reason);
  }
  report.notes.insert(report.notes.end(), fidelity.notes.begin(), fidelity.notes.end());
  report.notes.push_back(fmt::format("Adapters: gain {:.3f}, residual {:.3f} over {} tensors.", fidelity.gain,
                                     fidelity.residual, fidelity.measured));
  for (const std::string& text : fidelity.warnings) report.warnings.push_back({text, {}});
  if (!lost.empty())
    report.warnings.push_back(
        {fmt::format("Less than half of the adapters is left in {} of {} tensors: {}. What helps: {}.", lost.size(),
                     fidelity.measured, listed_names(lost), kVanishedAdvice),
         {}});
}

}  // namespace mezzotint::convert
