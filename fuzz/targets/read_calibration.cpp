#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "fuzz.h"
#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/convert/execute.h"

/// Opens calibration files whose numbers were mutated, alone and beside another one, reads X'X, plans a conversion with
/// them, and runs some of those.
namespace mezzotint::fuzz {
namespace {
namespace fs = std::filesystem;
using convert::Calibration;
using convert::ConvertOptions;
using convert::LayerStatistics;

constexpr int64_t kCols = 12, kTokens = 40, kBins = 514;
constexpr char kAttention[] = "model.diffusion_model.blocks.0.q", kUp[] = "model.diffusion_model.blocks.0.up",
               kEncoder[] = "text_encoders.t5xxl.blocks.0.q";
// Files of which the conversion is run, too: one of so many.
constexpr size_t kRunOne = 8;

// --- recordings made by hand
// ------------------------------------------------------------------------------------------

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

size_t bin_of(float value) {
  if (std::abs(value) < std::ldexp(1.0f, -40)) return 0;
  int exponent = 0;
  const float mantissa = std::frexp(std::abs(value), &exponent);
  return std::min<size_t>(kBins - 1,
                          static_cast<size_t>(8 * (exponent + 39) + static_cast<int>(16 * mantissa - 8)) + 1);
}

/// Statistics of random inputs of this width.
void add_layer(FileModel& file, const std::string& layer, Rng& rng, int64_t cols, int64_t tokens, float width,
               bool gram) {
  const auto k = static_cast<size_t>(cols);
  std::vector<double> mean(k), sums(k * k);
  std::vector<float> x(k), amax(k), means, moments, triangle;
  std::vector<int64_t> counts(kBins);
  for (int64_t t = 0; t < tokens; ++t) {
    for (float& value : x) value = width * static_cast<float>(static_cast<double>(rng() >> 11) * 0x1p-52 - 0.7);
    for (size_t i = 0; i < k; ++i) {
      ++counts[bin_of(x[i])];
      amax[i] = std::max(amax[i], std::abs(x[i]));
      mean[i] += static_cast<double>(x[i]);
      for (size_t j = 0; j <= i; ++j) sums[i * k + j] += static_cast<double>(x[i]) * static_cast<double>(x[j]);
    }
  }
  const auto n = static_cast<double>(tokens);
  for (size_t i = 0; i < k; ++i) {
    means.push_back(static_cast<float>(mean[i] / n));
    moments.push_back(static_cast<float>(sums[i * k + i] / n));
    for (size_t j = 0; j <= i; ++j) triangle.push_back(static_cast<float>(sums[i * k + j] / n));
  }
  file.add(layer + ".amax", DType::f32, {}, bytes_of(std::vector<float>{*std::max_element(amax.begin(), amax.end())}));
  file.add(layer + ".channel_amax", DType::f32, {cols}, bytes_of(amax));
  file.add(layer + ".channel_mean", DType::f32, {cols}, bytes_of(means));
  file.add(layer + ".second_moment", DType::f32, {cols}, bytes_of(moments));
  file.add(layer + ".histogram", DType::i64, {kBins}, bytes_of(counts));
  file.add(layer + ".tokens", DType::i64, {}, bytes_of(std::vector<int64_t>{tokens}));
  if (gram) file.add(layer + ".gram", DType::f32, {cols * (cols + 1) / 2}, bytes_of(triangle));
}

FileModel empty_file() {
  FileModel file;
  file.top.push_back({"\"__metadata__\"", R"({"mezzotint_calibration":"1","note":"a test"})"});
  return file;
}

std::vector<FileModel> seeds() {
  Rng rng(1);
  std::vector<FileModel> all(3, empty_file());
  add_layer(all[0], kAttention, rng, kCols, kTokens, 4, true);
  add_layer(all[1], kUp, rng, kCols, 100 * kTokens, 0.01f, true);
  add_layer(all[1], kEncoder, rng, kCols, kTokens, 1000, false);
  add_layer(all[2], kAttention, rng, kCols, kTokens, 1, false);
  add_layer(all[2], kUp, rng, kCols, 1, 1, true);
  add_layer(all[2], "blocks.7.of_another_model", rng, 1, 3, 1, true);
  return all;
}

/// The file that stands beside each.
FileModel companion() {
  Rng rng(2);
  FileModel file = empty_file();
  add_layer(file, kAttention, rng, kCols, 5 * kTokens, 2, true);
  return file;
}

FileModel model_file() {
  Rng rng(3);
  FileModel file;
  for (const char* layer : {kAttention, kUp, kEncoder}) {
    std::vector<float> weight(16 * kCols);
    for (float& w : weight) w = static_cast<float>(static_cast<double>(rng() >> 11) * 0x1p-53 - 0.5);
    file.add(std::string(layer) + ".weight", DType::f32, {16, kCols}, bytes_of(weight));
  }
  return file;
}

// --- mutations: each keeps the header sound, so that what lies behind it is reached
// ------------------------------------

bool is_part(const Entry& entry, std::string_view part) {
  return entry.name.ends_with("." + std::string(part));
}

std::string layer_of(const Entry& entry) {
  return entry.name.substr(0, entry.name.rfind('.'));
}

/// A random entry with such a suffix and data; the number of entries where there is none.
size_t some(const FileModel& file, Rng& rng, std::string_view part) {
  for (size_t start = rng() % file.entries.size(), i = 0; i < file.entries.size(); ++i) {
    const Entry& entry = file.entries[(start + i) % file.entries.size()];
    if (is_part(entry, part) && entry.end > entry.begin) return (start + i) % file.entries.size();
  }
  return file.entries.size();
}

template <class T>
size_t count(const Entry& entry) {
  return (entry.end - entry.begin) / sizeof(T);
}

template <class T>
T get(const FileModel& file, const Entry& entry, size_t i) {
  T value;
  std::memcpy(&value, file.data.data() + entry.begin + i * sizeof(T), sizeof value);
  return value;
}

template <class T>
void put(FileModel& file, const Entry& entry, size_t i, T value) {
  std::memcpy(file.data.data() + entry.begin + i * sizeof(T), &value, sizeof value);
}

constexpr char kBad[] = "bad-calibration";

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kMost = std::numeric_limits<float>::max();

Answer not_finite(FileModel& file, Rng& rng) {
  constexpr std::string_view parts[] = {"amax", "channel_amax", "channel_mean", "second_moment", "gram"};
  const size_t at = some(file, rng, parts[rng() % std::size(parts)]);
  if (at == file.entries.size() || count<float>(file.entries[at]) == 0) return "";
  const float values[] = {kInfinity, -kInfinity, std::nanf("1"), -std::nanf("77")};
  put(file, file.entries[at], rng() % count<float>(file.entries[at]), values[rng() % 4]);
  return kBad;
}

Answer negative(FileModel& file, Rng& rng) {
  constexpr std::string_view parts[] = {"amax", "channel_amax", "second_moment"};
  const size_t at = some(file, rng, parts[rng() % std::size(parts)]);
  if (at == file.entries.size() || count<float>(file.entries[at]) == 0) return "";
  put(file, file.entries[at], rng() % count<float>(file.entries[at]), rng() % 2 ? -1.0f : -1e-42f);
  return kBad;
}

Answer other_amax(FileModel& file, Rng& rng) {
  const size_t at = some(file, rng, rng() % 2 ? "amax" : "channel_amax");
  if (at == file.entries.size() || count<float>(file.entries[at]) == 0) return "";
  const Entry& entry = file.entries[at];
  const size_t i = rng() % count<float>(entry);
  const float old = get<float>(file, entry, i);
  const float values[] = {std::nextafter(old, kInfinity), kMost, 0, 1e-45f};
  put(file, entry, i, values[rng() % 4]);
  return is_part(entry, "amax") && get<float>(file, entry, 0) != old ? kBad : "";
}

Answer too_large(FileModel& file, Rng& rng) {
  const bool mean = rng() % 2;
  const size_t at = some(file, rng, mean ? "channel_mean" : "second_moment");
  if (at == file.entries.size() || count<float>(file.entries[at]) == 0) return "";
  put(file, file.entries[at], rng() % count<float>(file.entries[at]), mean && rng() % 2 ? -3e6f : 3e6f);
  return kBad;  // seeds are below 1000
}

Answer any_bits(FileModel& file, Rng& rng) {
  for (size_t i = 1 + rng() % 3; i-- > 0;) file.data[rng() % file.data.size()] = static_cast<char>(rng());
  return "";
}

// Counts are computed with as unsigned numbers: an earlier mutation may have left any bits there.
Answer moved_counts(FileModel& file, Rng& rng) {
  const size_t at = some(file, rng, "histogram");
  if (at == file.entries.size() || count<uint64_t>(file.entries[at]) != kBins) return "";
  const Entry& entry = file.entries[at];
  const size_t from = rng() % kBins, to = rng() % kBins;
  const uint64_t before = get<uint64_t>(file, entry, from), by = rng() % 3 ? before : rng() >> 3;
  put(file, entry, from, before - by);
  put(file, entry, to, get<uint64_t>(file, entry, to) + by);  // sums up as before, modulo 2^64
  return by <= before || from == to ? "ok" : kBad;
}

Answer other_counts(FileModel& file, Rng& rng) {
  const size_t at = some(file, rng, "histogram");
  if (at == file.entries.size() || count<int64_t>(file.entries[at]) != kBins) return "";
  const Entry& entry = file.entries[at];
  const size_t i = rng() % kBins;
  const auto more = static_cast<int64_t>(get<uint64_t>(file, entry, i) + 1);
  const int64_t values[] = {more, -1, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  put(file, entry, i, values[rng() % 4]);
  return kBad;
}

Answer other_tokens(FileModel& file, Rng& rng) {
  const size_t at = some(file, rng, "tokens");
  if (at == file.entries.size() || count<int64_t>(file.entries[at]) != 1) return "";
  const auto more = static_cast<int64_t>(get<uint64_t>(file, file.entries[at], 0) + 1);
  const int64_t values[] = {
      0, -1, more, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min(), int64_t{1} << 53};
  put(file, file.entries[at], 0, values[rng() % std::size(values)]);
  return kBad;
}

/// So many tokens as there can be, with counts to fit.
Answer many_tokens(FileModel& file, Rng& rng) {
  const size_t at = some(file, rng, "tokens");
  if (at == file.entries.size() || count<int64_t>(file.entries[at]) != 1) return "";
  const Entry& entry = file.entries[at];
  for (const Entry& other : file.entries) {
    if (layer_of(other) != layer_of(entry) || !is_part(other, "histogram") || count<int64_t>(other) != kBins) continue;
    const uint64_t old = get<uint64_t>(file, entry, 0), times = 1 + rng() % 1'000'000;
    if (old < 1 || old > 1'000'000) return "";
    put(file, entry, 0, old * times);
    for (size_t i = 0; i < kBins; ++i) put(file, other, i, get<uint64_t>(file, other, i) * times);
    return "ok";
  }
  return "";
}

Answer other_gram(FileModel& file, Rng& rng) {
  const size_t at = some(file, rng, "gram");
  if (at == file.entries.size() || count<float>(file.entries[at]) < 3) return "";
  const Entry& entry = file.entries[at];
  // (0,0), (1,0), (1,1): what lies off the diagonal may be anything, of a matrix that no inputs have.
  if (rng() % 2) {
    put(file, entry, 0, 1.5f * get<float>(file, entry, 0));
    return kBad;
  }
  const float values[] = {kMost, -kMost, 1e30f, -1e20f, 0, 1e-45f};
  for (size_t row = 1, i = 1; i < count<float>(entry); i += ++row)
    if (rng() % 3) put(file, entry, i, values[rng() % std::size(values)]);
  return "ok";
}

/// A layer that saw zeros only, or values next to the ends of what float32 has.
Answer extreme(FileModel& file, Rng& rng) {
  const std::string layer = layer_of(file.entries[rng() % file.entries.size()]);
  const float values[] = {0, 1e-45f, 1e-30f, 1e10f, 1e19f};
  const float value = values[rng() % std::size(values)];
  const auto bin = bin_of(value);
  for (const Entry& entry : file.entries) {
    if (layer_of(entry) != layer) continue;
    const bool square = is_part(entry, "second_moment") || is_part(entry, "gram");
    const float written = square ? static_cast<float>(static_cast<double>(value) * static_cast<double>(value)) : value;
    if (entry.dtype == DType::f32)
      for (size_t i = 0; i < count<float>(entry); ++i) put(file, entry, i, written);
    if (!is_part(entry, "histogram") || count<int64_t>(entry) != kBins) continue;
    uint64_t sum = 0;
    for (size_t i = 0; i < kBins; ++i) sum += get<uint64_t>(file, entry, i);
    for (size_t i = 0; i < kBins; ++i) put(file, entry, i, i == bin ? sum : uint64_t{0});
  }
  return "ok";
}

Answer other_dtype(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  const auto& other = all_dtypes()[rng() % all_dtypes().size()];
  const auto bytes = byte_count(other.dtype, entry.shape);
  if (!bytes || other.dtype == entry.dtype) return "";
  file.replace(index, other.dtype, entry.shape, std::string(*bytes, '\1'));
  return kBad;
}

Answer other_shape(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  const Shape shapes[] = {{},         {0},        {1},       {kCols},    {kCols + 1},
                          {kCols, 1}, {1, kCols}, {100'000}, {kBins, 0}, {0, kBins}};
  const Shape& shape = shapes[rng() % std::size(shapes)];
  if (shape == entry.shape) return "";
  file.replace(index, entry.dtype, shape, std::string(*byte_count(entry.dtype, shape), '\0'));
  return kBad;
}

Answer removed(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const bool needed = !is_part(file.entries[index], "gram");
  if (file.entries.size() < 2) return "";
  file.remove(index);
  return needed ? kBad : "ok";
}

void rename(FileModel& file, size_t index, const std::string& name) {
  Entry& entry = file.entries[index];
  entry.name = name;
  entry.key = quote(name);
}

bool has(const FileModel& file, const std::string& name) {
  return std::any_of(file.entries.begin(), file.entries.end(), [&](const Entry& entry) { return entry.name == name; });
}

Answer renamed(FileModel& file, Rng& rng) {
  constexpr std::string_view suffixes[] = {"weight", "", "amax", "gram", "gram ", "Gram", "tokens", "input_scale"};
  const size_t index = rng() % file.entries.size();
  const std::string name = (rng() % 4 ? layer_of(file.entries[index]) + "." : std::string()) +
                           std::string(suffixes[rng() % std::size(suffixes)]);
  if (has(file, name)) return "";
  rename(file, index, name);
  return kBad;
}

/// A layer is called something else, which may be a layer of the model, of two, or of none.
Answer renamed_layer(FileModel& file, Rng& rng) {
  const std::string names[] = {
      "blocks.0.q", "x", "", kUp, kEncoder, "diffusion_model.blocks.0.up", "text_encoders.clip_l.q"};
  const std::string old = layer_of(file.entries[rng() % file.entries.size()]), name = names[rng() % std::size(names)];
  for (const Entry& entry : file.entries)
    if (layer_of(entry) == name) return "";
  for (size_t i = 0; i < file.entries.size(); ++i)
    if (layer_of(file.entries[i]) == old) rename(file, i, name + file.entries[i].name.substr(old.size()));
  return name.empty() ? kBad : "ok|calibration-unrelated|calibration-ambiguous|calibration-mismatch";
}

Answer other_width(FileModel& file, Rng& rng) {
  const std::string layer = layer_of(file.entries[rng() % file.entries.size()]);
  const int64_t cols = 1 + static_cast<int64_t>(rng() % 40);
  for (size_t i = file.entries.size(); i-- > 0;)
    if (layer_of(file.entries[i]) == layer) file.remove(i);
  add_layer(file, layer, rng, cols, 7, 1, rng() % 2);
  const bool known = layer == kAttention || layer == kUp || layer == kEncoder;
  return known && cols != kCols ? "calibration-mismatch" : "ok";
}

Answer same_as_companion(FileModel& file, Rng& rng) {
  file = companion();
  std::shuffle(file.entries.begin(), file.entries.end(), rng);
  return "calibration-twice";
}

Answer other_metadata(FileModel& file, Rng& rng) {
  file.top.clear();
  const std::string values[] = {"",
                                "{}",
                                R"({"format":"pt"})",
                                R"({"mezzotint_calibration":"2"})",
                                R"({"mezzotint_calibration":""})",
                                R"({"mezzotint_calibration":"1 "})"};
  const size_t choice = rng() % std::size(values);
  if (choice > 0) file.top.push_back({"\"__metadata__\"", values[choice]});
  return choice < 3 ? "not-calibration" : "calibration-version";
}

Answer shuffled(FileModel& file, Rng& rng) {
  std::shuffle(file.entries.begin(), file.entries.end(), rng);
  return "ok";
}

// --- reading
// ----------------------------------------------------------------------------------------------------------

void check(bool right, const std::string& what) {
  if (!right) throw WrongRead{what};
}

struct Tensor {
  Shape shape;
  std::string bytes;
  template <class T>
  std::vector<T> as() const {
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
  }
};
using Parts = std::map<std::string, Tensor>;

/// The layers of a file, by another parser.
std::map<std::string, Parts> parse(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(in), {}};
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const auto header = nlohmann::json::parse(file.substr(8, length));
  std::map<std::string, Parts> layers;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const uint64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    layers[name.substr(0, name.rfind('.'))][name.substr(name.rfind('.') + 1)] = {
        entry["shape"].get<Shape>(), file.substr(8 + length + begin, end - begin)};
  }
  return layers;
}

/// What docs/calibration.md demands of every recording, and that all of it arrived.
void check_layer(const std::string& name, const Parts& parts, const LayerStatistics& s) {
  const auto floats = [&](const char* part) { return parts.at(part).as<float>(); };
  const auto amax = floats("channel_amax"), mean = floats("channel_mean"), moment = floats("second_moment");
  const auto counts = parts.at("histogram").as<int64_t>();
  const auto tokens = parts.at("tokens").as<int64_t>().at(0);
  check(s.amax == floats("amax").at(0) && s.channel_amax == amax && s.channel_mean == mean &&
            s.second_moment == moment && s.histogram == counts && s.tokens == static_cast<uint64_t>(tokens),
        "statistics of '" + name + "' are not those of the file");
  check(tokens >= 1 && !amax.empty() && mean.size() == amax.size() && moment.size() == amax.size(), "sizes of " + name);
  double sum = 0;
  for (const int64_t n : counts) {
    check(n >= 0, "a negative count in " + name);
    sum += static_cast<double>(n);
  }
  check(sum == static_cast<double>(tokens) * static_cast<double>(amax.size()), "counts of " + name);
  check(s.amax == *std::max_element(amax.begin(), amax.end()), "amax of " + name);
  for (size_t j = 0; j < amax.size(); ++j) {
    const double most = static_cast<double>(amax[j]);
    check(std::isfinite(most) && most >= 0 && moment[j] >= 0 && std::abs(static_cast<double>(mean[j])) <= 1.01 * most &&
              static_cast<double>(moment[j]) <= 1.01 * most * most + 1e-36,
          "a value of " + name);
  }
  for (const double percent : {0.001, 50.0, 99.9, 100.0}) {
    const float value = s.percentile(percent);
    check(value >= 0 && value <= s.amax, "a percentile of " + name);
  }
}

void check_gram(const Calibration& calibration, const std::string& name, const Parts& parts, const LayerStatistics& s) {
  const auto cols = static_cast<int64_t>(s.channel_amax.size());
  const auto k = static_cast<size_t>(cols);
  std::vector<float> whole(k * k, -7.0f), rows = whole;
  const bool found = calibration.read_gram_rows(name, 0, cols, whole.data());
  check(found == s.has_gram && found == (parts.count("gram") > 0), "X'X of '" + name + "' is lost or made up");
  if (!found) return;
  for (int64_t r = 0; r < cols; ++r) calibration.read_gram_rows(name, r, 1, rows.data() + r * cols);
  check(rows == whole, "X'X depends on how many rows are read at once");
  const auto triangle = parts.at("gram").as<float>();
  for (size_t r = 0, i = 0; r < k; ++r)
    for (size_t j = 0; j < k; ++j) {
      const float value = whole[r * k + j];
      check(j > r ? value == -7.0f : value == triangle.at(i++), "X'X of " + name);
      check(std::isfinite(value), "X'X of " + name + " is not finite");
    }
  for (size_t r = 0; r < k; ++r) {
    const double moment = static_cast<double>(s.second_moment[r]);
    check(std::abs(static_cast<double>(whole[r * k + r]) - moment) <= 0.03 * moment + 1e-29, "diagonal of X'X");
  }
}

void check_merged(const fs::path& path, const fs::path& other, const Calibration& alone) {
  const auto merged = Calibration::open({path, other});
  check(merged.fingerprint() == Calibration::open({other, path}).fingerprint(), "the order of files counts");
  check(merged.fingerprint() != alone.fingerprint(), "another file changes nothing");
  const auto second = Calibration::open({other});
  for (const auto& name : alone.layers()) {
    const LayerStatistics &a = *alone.find(name), &sum = *merged.find(name);
    const auto names = second.layers();
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      check(sum.channel_mean == a.channel_mean && sum.tokens == a.tokens, "a layer of one file");
      continue;
    }
    const LayerStatistics& b = *second.find(name);
    check(sum.tokens == a.tokens + b.tokens && sum.amax == std::max(a.amax, b.amax), "merged tokens or amax");
    for (size_t j = 0; j < sum.channel_mean.size(); ++j) {
      const auto low = std::min(a.second_moment[j], b.second_moment[j]);
      const auto high = std::max(a.second_moment[j], b.second_moment[j]);
      check(sum.second_moment[j] >= low && sum.second_moment[j] <= high, "a mean outside of what it is of");
    }
  }
}

void convert_with(const fs::path& path, const fs::path& model_path, size_t number) {
  const auto model = checkpoint::Model::open(model_path);
  const ConvertOptions options{.preset = "none",
                               .component = "all",
                               .include = {"."},
                               .effort = 2 + static_cast<int>(number / kRunOne % 2),
                               .calibration = {path.string()}};
  const fs::path output = fs::path(path) += ".out";
  const auto plan = convert::make_plan(model, output, options, 1);
  size_t known = 0;
  for (const auto& row : plan.rows) {
    known += row.statistics != nullptr;
    check(!row.input_scale || (std::isnormal(*row.input_scale) && *row.input_scale > 0), "an input_scale");
  }
  check(known > 0, "a calibration without effect");
  if (number % kRunOne != 0) return;
  const auto outcome = convert::execute(plan, model, {.overwrite = true, .threads = 1, .measure = true});
  for (const auto& layer : outcome.layers) {
    check(layer.errors.non_finite == 0 && std::isfinite(layer.errors.relative_error()), "weights are no numbers");
    check(!layer.objective_ratio || (*layer.objective_ratio >= 0 && *layer.objective_ratio <= 1),
          "the optimizer made it worse");
  }
  for (const auto& finding : checkpoint::verify(checkpoint::Model::open(output), {.threads = 1}))
    check(finding.severity != checkpoint::Severity::error, finding.message);
}

void write_beside(const fs::path& path, const FileModel& file) {
  if (fs::exists(path)) return;
  const std::string bytes = file.bytes();
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void read(const fs::path& path, const FileModel*) {
  const fs::path other = fs::path(path) += ".other", model = fs::path(path) += ".model";
  write_beside(other, companion());
  write_beside(model, model_file());
  const auto calibration = Calibration::open({path});
  const auto layers = parse(path);
  check(layers.size() == calibration.layers().size(), "number of layers");
  for (const auto& [name, parts] : layers) {
    const LayerStatistics* statistics = calibration.find(name);
    check(statistics != nullptr, "layer '" + name + "' is lost");
    check_layer(name, parts, *statistics);
    check_gram(calibration, name, parts, *statistics);
  }
  check(calibration.fingerprint() == Calibration::open({path}).fingerprint(), "two fingerprints");
  check_merged(path, other, calibration);
  convert_with(path, model, calibration.fingerprint());
}

}  // namespace

Target target() {
  const std::vector<Mutation> mutations = {not_finite,    negative,     other_amax,        too_large,      any_bits,
                                           moved_counts,  other_counts, other_tokens,      many_tokens,    other_gram,
                                           extreme,       other_dtype,  other_shape,       removed,        renamed,
                                           renamed_layer, other_width,  same_as_companion, other_metadata, shuffled};
  return {.suffix = ".safetensors",
          .seeds = seeds(),
          .header_mutations = mutations,
          .outer_mutations = mutations,
          .required_answers = {"ok", "not-calibration", "calibration-version", "bad-calibration", "calibration-twice",
                               "calibration-mismatch", "calibration-unrelated", "calibration-ambiguous"},
          .read = read};
}

}  // namespace mezzotint::fuzz
