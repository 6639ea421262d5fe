#include "mezzotint/convert/calibration/file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/calibration/histogram.h"
#include "mezzotint/io/hash.h"

namespace mezzotint::convert {
namespace {

enum StatisticPart : size_t { amax, channel_amax, channel_mean, second_moment, counts, tokens, gram, part_count };

struct PartFacts {
  std::string_view suffix;
  DType dtype;
};
constexpr std::array<PartFacts, part_count> kParts = {{{"amax", DType::f32},
                                                       {"channel_amax", DType::f32},
                                                       {"channel_mean", DType::f32},
                                                       {"second_moment", DType::f32},
                                                       {"histogram", DType::i64},
                                                       {"tokens", DType::i64},
                                                       {"gram", DType::f32}}};

// Sums of counts stay exact in 64 bits and in a double.
constexpr uint64_t kMostValues = uint64_t{1} << 53;

// Wider than any layer; what is held stays small whatever a header says, and K(K+1)/2 fits.
constexpr int64_t kMostCols = int64_t{1} << 24;

constexpr std::string_view kAdvice =
    "Record it anew with tools/calibrate/record.py; docs/calibration.md has the layout.";

using Tensors = std::array<std::optional<size_t>, part_count>;

class FileReader {
 public:
  explicit FileReader(const std::filesystem::path& path) : path_(path.string()), source_(io::Source::open(path)) {}

  CalibrationFile read() {
    check_version();
    std::map<std::string, Tensors, std::less<>> layers;
    for (size_t i = 0; i < source_.tensors().size(); ++i) sort_in(i, layers);
    if (layers.empty()) fail("bad-calibration", "", "the file holds no layer", "", "");
    CalibrationFile file{source_, {}, 0};
    for (const auto& [name, tensors] : layers) file.layers.push_back(read_layer(name, tensors));
    file.fingerprint = hash_.value();
    return file;
  }

 private:
  [[noreturn]] void fail(std::string_view error, const std::string& tensor, std::string problem, std::string expected,
                         std::string found) const {
    throw Error({.name = error,
                 .problem = std::move(problem),
                 .file = path_,
                 .tensor = tensor,
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .advice = std::string(kAdvice)});
  }
  [[noreturn]] void bad(size_t tensor, std::string problem, std::string expected, std::string found) const {
    fail("bad-calibration", source_.tensors()[tensor].name, std::move(problem), std::move(expected), std::move(found));
  }

  void check_version() const {
    const auto& metadata = source_.metadata();
    const auto entry =
        std::find_if(metadata.begin(), metadata.end(), [](const auto& pair) { return pair.first == kCalibrationKey; });
    if (entry == metadata.end())
      fail("not-calibration", "", fmt::format("the metadata has no key '{}'", kCalibrationKey), "a calibration file",
           "another safetensors file");
    if (entry->second != kCalibrationVersion)
      fail("calibration-version", "", "unknown version of a calibration file", std::string(kCalibrationVersion),
           entry->second);
  }

  void sort_in(size_t tensor, std::map<std::string, Tensors, std::less<>>& layers) const {
    const auto [layer, suffix] = checkpoint::split_name(source_.tensors()[tensor].name);
    for (size_t part = 0; part < part_count; ++part) {
      if (suffix != kParts[part].suffix || layer.empty()) continue;
      layers[std::string(layer)][part] = tensor;
      return;
    }
    bad(tensor, "a calibration file has no such tensor", "LAYER.amax, .channel_amax, .channel_mean, ...",
        std::string(suffix));
  }

  void check_shape(size_t tensor, StatisticPart part, const Shape& expected) const {
    const io::TensorInfo& info = source_.tensors()[tensor];
    if (info.dtype != kParts[part].dtype)
      bad(tensor, "wrong dtype", std::string(name(kParts[part].dtype)), std::string(name(info.dtype)));
    if (info.shape != expected) bad(tensor, "wrong shape", to_string(expected), to_string(info.shape));
  }

  template <class T>
  std::vector<T> read_values(size_t tensor, StatisticPart part, const Shape& shape) {
    check_shape(tensor, part, shape);
    std::vector<T> values(static_cast<size_t>(element_count(shape).value()));
    source_.read(tensor, 0, values.data(), values.size() * sizeof(T));
    hash_.add(std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
    return values;
  }

  std::vector<float> read_floats(size_t tensor, StatisticPart part, const Shape& shape, bool may_be_negative) {
    auto values = read_values<float>(tensor, part, shape);
    for (const float value : values)
      if (!std::isfinite(value) || (value < 0 && !may_be_negative))
        bad(tensor, "a value that no recording gives", may_be_negative ? "finite numbers" : "finite numbers, 0 or more",
            fmt::format("{}", value));
    return values;
  }

  RecordedLayer read_layer(const std::string& name, const Tensors& tensors) {
    for (size_t part = 0; part < gram; ++part)
      if (!tensors[part])
        fail("bad-calibration", name + "." + std::string(kParts[part].suffix), "the tensor is missing", "", "");
    RecordedLayer layer{.name = name, .statistics = {}};
    LayerStatistics& s = layer.statistics;
    const io::TensorInfo& widest = source_.tensors()[*tensors[channel_amax]];
    if (widest.shape.size() != 1 || widest.shape[0] < 1 || widest.shape[0] > kMostCols)
      bad(*tensors[channel_amax], "wrong shape", fmt::format("[K], K = 1 to {}", kMostCols), to_string(widest.shape));
    const int64_t cols = widest.shape[0];
    hash_.add(std::string_view(name)).add(cols);
    s.amax = read_floats(*tensors[amax], amax, {}, false)[0];
    s.channel_amax = read_floats(*tensors[channel_amax], channel_amax, {cols}, false);
    s.channel_mean = read_floats(*tensors[channel_mean], channel_mean, {cols}, true);
    s.second_moment = read_floats(*tensors[second_moment], second_moment, {cols}, false);
    s.histogram = read_values<int64_t>(*tensors[counts], counts, {histogram::kBins});
    const int64_t count = read_values<int64_t>(*tensors[tokens], tokens, {})[0];
    if (count < 1 || static_cast<uint64_t>(count) > kMostValues / static_cast<uint64_t>(cols))
      bad(*tensors[tokens], "an impossible number of tokens",
          fmt::format("1 to {}", kMostValues / static_cast<uint64_t>(cols)), fmt::format("{}", count));
    s.tokens = static_cast<uint64_t>(count);
    check_agreement(s, tensors);
    if (tensors[gram]) {
      check_shape(*tensors[gram], gram, {cols * (cols + 1) / 2});
      layer.gram = *tensors[gram];
      s.has_gram = true;
      std::vector<float> last(static_cast<size_t>(cols));
      source_.read(layer.gram, static_cast<uint64_t>(cols * (cols - 1) / 2) * sizeof(float), last.data(),
                   last.size() * sizeof(float));
      hash_.add(std::string_view(reinterpret_cast<const char*>(last.data()), last.size() * sizeof(float)));
    }
    return layer;
  }

  // What holds for every recording; rounding may disturb means by far less than a thousandth.
  void check_agreement(const LayerStatistics& s, const Tensors& tensors) const {
    const float most = *std::max_element(s.channel_amax.begin(), s.channel_amax.end());
    if (s.amax != most)
      bad(*tensors[amax], "not the largest of channel_amax", fmt::format("{}", most), fmt::format("{}", s.amax));
    for (size_t j = 0; j < s.channel_amax.size(); ++j) {
      const double limit = static_cast<double>(s.channel_amax[j]);
      if (std::abs(static_cast<double>(s.channel_mean[j])) > limit * 1.001)
        bad(*tensors[channel_mean], fmt::format("the mean of channel {} exceeds its largest magnitude", j),
            fmt::format("at most {}", limit), fmt::format("{}", s.channel_mean[j]));
      if (static_cast<double>(s.second_moment[j]) > limit * limit * 1.001 + 1e-37)
        bad(*tensors[second_moment], fmt::format("channel {} exceeds the square of its largest magnitude", j),
            fmt::format("at most {}", limit * limit), fmt::format("{}", s.second_moment[j]));
    }
    uint64_t left = s.tokens * s.channel_amax.size();
    for (const int64_t count : s.histogram) {
      if (count < 0 || static_cast<uint64_t>(count) > left)
        bad(*tensors[counts], "the counts do not sum up to tokens * K",
            fmt::format("{}", s.tokens * s.channel_amax.size()), "a negative count or more than that");
      left -= static_cast<uint64_t>(count);
    }
    if (left != 0)
      bad(*tensors[counts], "the counts do not sum up to tokens * K",
          fmt::format("{}", s.tokens * s.channel_amax.size()), fmt::format("{} fewer", left));
  }

  std::string path_;
  io::Source source_;
  io::Hash64 hash_;
};

}  // namespace

CalibrationFile read_calibration_file(const std::filesystem::path& path) {
  return FileReader(path).read();
}

}  // namespace mezzotint::convert
