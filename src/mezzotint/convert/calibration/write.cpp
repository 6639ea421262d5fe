#include "mezzotint/convert/calibration/write.h"

#include <vector>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/calibration/file.h"
#include "mezzotint/convert/calibration/histogram.h"
#include "mezzotint/io/writer.h"

namespace mezzotint::convert {
namespace {

constexpr size_t kGramPiece = 1 << 18;  // floats written at once

/// Rows are gathered, because the first ones are short.
void write_gram(io::Writer& writer, size_t tensor, const LayerRecording& layer) {
  const auto cols = static_cast<int64_t>(layer.statistics.channel_amax.size());
  std::vector<float> values;
  uint64_t offset = 0;
  for (int64_t row = 0; row < cols; ++row) {
    const size_t held = values.size();
    values.resize(held + static_cast<size_t>(row) + 1);
    layer.gram_row(row, values.data() + held);
    if (values.size() < kGramPiece && row + 1 < cols) continue;
    writer.write(tensor, offset, values.data(), values.size() * sizeof(float));
    offset += values.size() * sizeof(float);
    values.clear();
  }
}

}  // namespace

void write_calibration(const std::filesystem::path& path, std::span<const LayerRecording> layers, bool overwrite) {
  if (layers.empty())
    throw Error({.name = "nothing-recorded",
                 .problem = "no layer was used while recording",
                 .file = path.string(),
                 .advice = "Run the model between making the recorder and saving."});
  std::vector<io::TensorSpec> specs;
  for (const LayerRecording& layer : layers) {
    const auto cols = static_cast<int64_t>(layer.statistics.channel_amax.size());
    specs.push_back({layer.name + ".tokens", DType::i64, {}});
    specs.push_back({layer.name + ".amax", DType::f32, {}});
    for (const char* suffix : {".channel_amax", ".channel_mean", ".second_moment"})
      specs.push_back({layer.name + suffix, DType::f32, {cols}});
    specs.push_back({layer.name + ".histogram", DType::i64, {histogram::kBins}});
    if (layer.statistics.has_gram) specs.push_back({layer.name + ".gram", DType::f32, {cols * (cols + 1) / 2}});
  }
  io::Writer writer(
      io::plan_output(path, specs, {.metadata = {{std::string(kCalibrationKey), std::string(kCalibrationVersion)}}}),
      io::Writer::Mode::create, overwrite);
  try {
    size_t tensor = 0;
    const auto write = [&](const void* data, size_t bytes) { writer.write(tensor++, 0, data, bytes); };
    for (const LayerRecording& layer : layers) {
      const LayerStatistics& s = layer.statistics;
      const auto tokens = static_cast<int64_t>(s.tokens);
      write(&tokens, sizeof tokens);
      write(&s.amax, sizeof s.amax);
      for (const auto* values : {&s.channel_amax, &s.channel_mean, &s.second_moment})
        write(values->data(), values->size() * sizeof(float));
      write(s.histogram.data(), s.histogram.size() * sizeof(int64_t));
      if (s.has_gram) write_gram(writer, tensor++, layer);
    }
    writer.commit();
  } catch (...) {
    writer.discard();
    throw;
  }
}

}  // namespace mezzotint::convert
