#include "mezzotint/convert/calibration/calibration.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/calibration/file.h"
#include "mezzotint/convert/calibration/histogram.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/io/hash.h"

namespace mezzotint::convert {
namespace {

constexpr int64_t kGramChunk = 1 << 18;  // floats read at once

// A diagonal is summed in other order and perhaps in narrower arithmetic (TF32) than the second moment.
constexpr double kDiagonalTolerance = 0.02;

}  // namespace

float LayerStatistics::percentile(double p) const {
  return p >= 100 ? amax : static_cast<float>(histogram::percentile(histogram, p, static_cast<double>(amax)));
}

struct Calibration::State {
  struct Gram {
    size_t file, tensor;
    uint64_t tokens;
  };
  struct Entry {
    std::string name;
    std::string component;  // that the name's prefix tells, or ""
    std::string file;       // the first that has it, for messages
    LayerStatistics statistics;
    std::vector<Gram> grams;
    uint64_t gram_tokens = 0;
  };

  std::vector<CalibrationFile> files;  // their layers moved out
  std::vector<std::string> paths;      // parallel
  std::vector<Entry> entries;          // by name
  std::map<std::string, size_t, std::less<>> by_name;
  std::multimap<std::string, size_t, std::less<>> by_inner;  // without the prefix
  uint64_t fingerprint = 0;

  void merge();
  const Entry* find(std::string_view layer) const;
  void read_rows(const Entry& entry, int64_t row0, int64_t rows, float* out) const;
};

namespace {

/// Adds up recordings of one layer. Means are kept as sums until the end.
class Merger {
 public:
  explicit Merger(LayerStatistics& into) : into_(into) {
    const size_t cols = into.channel_amax.size();
    means_.assign(cols, 0.0);
    moments_.assign(cols, 0.0);
  }

  void add(const LayerStatistics& part) {
    const auto weight = static_cast<double>(part.tokens);
    into_.tokens += part.tokens;
    into_.amax = std::max(into_.amax, part.amax);
    into_.has_gram |= part.has_gram;
    for (size_t j = 0; j < means_.size(); ++j) {
      into_.channel_amax[j] = std::max(into_.channel_amax[j], part.channel_amax[j]);
      means_[j] += weight * static_cast<double>(part.channel_mean[j]);
      moments_[j] += weight * static_cast<double>(part.second_moment[j]);
    }
    for (size_t i = 0; i < into_.histogram.size(); ++i) into_.histogram[i] += part.histogram[i];
  }

  void finish() {
    const auto total = static_cast<double>(into_.tokens);
    for (size_t j = 0; j < means_.size(); ++j) {
      into_.channel_mean[j] = static_cast<float>(means_[j] / total);
      into_.second_moment[j] = static_cast<float>(moments_[j] / total);
    }
  }

 private:
  LayerStatistics& into_;
  std::vector<double> means_, moments_;
};

LayerStatistics nothing(size_t cols) {
  LayerStatistics statistics;
  for (auto* values : {&statistics.channel_amax, &statistics.channel_mean, &statistics.second_moment})
    values->assign(cols, 0.0f);
  statistics.histogram.assign(histogram::kBins, 0);
  return statistics;
}

[[noreturn]] void wrong_width(const std::string& file, std::string_view layer, size_t expected, size_t found) {
  throw Error({.name = "calibration-mismatch",
               .problem = "the statistics are of a layer of another width",
               .file = file,
               .tensor = std::string(layer),
               .expected = fmt::format("{} inputs", expected),
               .found = fmt::format("{}", found),
               .advice = "Give files that were recorded with this very model."});
}

}  // namespace

Calibration::Calibration(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Calibration Calibration::open(const std::vector<std::filesystem::path>& files) {
  auto state = std::make_shared<State>();
  std::vector<std::pair<CalibrationFile, std::string>> read;
  for (const auto& path : files) read.emplace_back(read_calibration_file(path), path.string());
  // Sums depend on the order of their terms; bytes must not depend on the order of files.
  std::stable_sort(read.begin(), read.end(),
                   [](const auto& a, const auto& b) { return a.first.fingerprint < b.first.fingerprint; });
  io::Hash64 hash;
  for (size_t i = 0; i < read.size(); ++i) {
    if (i > 0 && read[i].first.fingerprint == read[i - 1].first.fingerprint)
      throw Error({.name = "calibration-twice",
                   .problem = fmt::format("the file has the content of {}", read[i - 1].second),
                   .file = read[i].second,
                   .advice = "Give every recording once: its tokens would count double."});
    hash.add(read[i].first.fingerprint);
    state->files.push_back(std::move(read[i].first));
    state->paths.push_back(std::move(read[i].second));
  }
  state->fingerprint = hash.value();
  state->merge();
  return Calibration(std::move(state));
}

void Calibration::State::merge() {
  std::map<std::string, std::vector<std::pair<size_t, const RecordedLayer*>>> recordings;
  for (size_t f = 0; f < files.size(); ++f)
    for (const RecordedLayer& layer : files[f].layers) recordings[layer.name].emplace_back(f, &layer);
  for (const auto& [layer, parts] : recordings) {
    const size_t cols = parts.front().second->statistics.channel_amax.size();
    Entry entry{.name = layer, .component = {}, .file = paths[parts.front().first], .statistics = nothing(cols)};
    Merger merger(entry.statistics);
    for (const auto& [f, part] : parts) {
      const LayerStatistics& s = part->statistics;
      if (s.channel_amax.size() != cols) wrong_width(paths[f], layer, cols, s.channel_amax.size());
      merger.add(s);
      if (!s.has_gram) continue;
      entry.grams.push_back({f, part->gram, s.tokens});
      entry.gram_tokens += s.tokens;
    }
    merger.finish();
    ComponentName split = split_component(layer);
    entry.component = std::move(split.component);
    by_name.emplace(layer, entries.size());
    by_inner.emplace(std::string(split.inner), entries.size());
    entries.push_back(std::move(entry));
  }
  for (CalibrationFile& file : files) file.layers = {};
}

const Calibration::State::Entry* Calibration::State::find(std::string_view layer) const {
  if (const auto exact = by_name.find(layer); exact != by_name.end()) return &entries[exact->second];
  const ComponentName split = split_component(layer);
  const Entry* same = nullptr;      // of the same component
  const Entry* possible = nullptr;  // where one of the names tells none
  size_t same_count = 0, possible_count = 0;
  const auto [first, last] = by_inner.equal_range(split.inner);
  for (auto at = first; at != last; ++at) {
    const Entry& entry = entries[at->second];
    if (entry.component == split.component) {
      same = &entry;
      ++same_count;
    } else if (entry.component.empty() || split.component.empty()) {
      possible = &entry;
      ++possible_count;
    }
  }
  if (same_count > 0) return same_count == 1 ? same : nullptr;
  return possible_count == 1 ? possible : nullptr;
}

const LayerStatistics* Calibration::find(std::string_view layer) const {
  const State::Entry* entry = state_->find(layer);
  return entry == nullptr ? nullptr : &entry->statistics;
}

const LayerStatistics* Calibration::find(std::string_view layer, int64_t cols) const {
  const State::Entry* entry = state_->find(layer);
  if (entry == nullptr) return nullptr;
  const size_t found = entry->statistics.channel_amax.size();
  if (found != static_cast<size_t>(cols)) wrong_width(entry->file, layer, static_cast<size_t>(cols), found);
  return &entry->statistics;
}

bool Calibration::read_gram_rows(std::string_view layer, int64_t row0, int64_t rows, float* out) const {
  const State::Entry* entry = state_->find(layer);
  if (entry == nullptr || entry->grams.empty()) return false;
  const auto cols = static_cast<int64_t>(entry->statistics.channel_amax.size());
  assert(row0 >= 0 && rows >= 0 && row0 + rows <= cols);
  const auto triangle = [](int64_t n) { return n * (n + 1) / 2; };
  for (int64_t done = 0; done < rows;) {
    int64_t count = 1;
    while (done + count < rows && triangle(row0 + done + count + 1) - triangle(row0 + done) <= kGramChunk) ++count;
    state_->read_rows(*entry, row0 + done, count, out + done * cols);
    done += count;
  }
  return true;
}

void Calibration::State::read_rows(const Entry& entry, int64_t row0, int64_t rows, float* out) const {
  const auto cols = static_cast<int64_t>(entry.statistics.channel_amax.size());
  const int64_t first = row0 * (row0 + 1) / 2;
  const auto count = static_cast<size_t>((row0 + rows) * (row0 + rows + 1) / 2 - first);
  std::vector<float> values(count);
  std::vector<double> sums(count, 0.0);
  const auto fail = [&](const Gram& gram, std::string problem, std::string expected, std::string found) {
    throw Error({.name = "bad-calibration",
                 .problem = std::move(problem),
                 .file = paths[gram.file],
                 .tensor = files[gram.file].source.tensors()[gram.tensor].name,
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .advice = "Record it anew with tools/calibrate/record.py; docs/calibration.md has the layout."});
  };
  for (const Gram& gram : entry.grams) {
    files[gram.file].source.read(gram.tensor, static_cast<uint64_t>(first) * sizeof(float), values.data(),
                                 count * sizeof(float));
    const double weight = static_cast<double>(gram.tokens) / static_cast<double>(entry.gram_tokens);
    for (size_t i = 0; i < count; ++i) {
      if (!std::isfinite(values[i])) fail(gram, "a value is not finite", "", fmt::format("{}", values[i]));
      sums[i] += weight * static_cast<double>(values[i]);
    }
  }
  const double* sum = sums.data();
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row0 + r;
    for (int64_t j = 0; j <= row; ++j) out[r * cols + j] = static_cast<float>(*sum++);
    // Tells a triangle that is stored the other way round. Without the gram of every file there is nothing to compare.
    const auto moment = static_cast<double>(entry.statistics.second_moment[static_cast<size_t>(row)]);
    const auto diagonal = static_cast<double>(out[r * cols + row]);
    if (entry.gram_tokens == entry.statistics.tokens &&
        std::abs(diagonal - moment) > kDiagonalTolerance * moment + 1e-30)
      fail(entry.grams.front(), fmt::format("the diagonal of row {} is not the second moment", row),
           fmt::format("{}", moment), fmt::format("{}", diagonal));
  }
}

uint64_t Calibration::fingerprint() const {
  return state_->fingerprint;
}

std::string Calibration::fingerprint_text() const {
  return fmt::format("{:016x}", state_->fingerprint);
}

std::vector<std::string> Calibration::layers() const {
  std::vector<std::string> names;
  for (const State::Entry& entry : state_->entries) names.push_back(entry.name);
  return names;
}

std::vector<std::string> Calibration::unused(std::span<const std::string> model_layers) const {
  std::set<const State::Entry*> used;
  for (const std::string& layer : model_layers) used.insert(state_->find(layer));
  std::vector<std::string> names;
  for (const State::Entry& entry : state_->entries)
    if (!used.contains(&entry)) names.push_back(entry.name);
  return names;
}

uint64_t Calibration::bytes() const {
  uint64_t bytes = 0;
  for (const State::Entry& entry : state_->entries)
    bytes += sizeof entry + 3 * entry.statistics.channel_amax.size() * sizeof(float) +
             entry.statistics.histogram.size() * sizeof(int64_t) + 4 * entry.name.size();
  return bytes;
}

}  // namespace mezzotint::convert
