#include "mezzotint/checkpoint/verify.h"

#include <fmt/format.h>

#include <cassert>
#include <cmath>
#include <map>
#include <mutex>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/formats/parallel.h"

namespace mezzotint::checkpoint {
namespace {

// 1 Mi elements: 4 MiB of floats and the codes per thread.
constexpr uint64_t kRunElements = 1 << 20;

std::string label(const formats::Layout& layout) {
  return formats::Selection{layout.format, layout.options}.label();
}

const io::TensorInfo& tensor(const Model& model, size_t index) {
  return model.source().tensors()[index];
}

class Verifier {
 public:
  Verifier(const Model& model, const VerifyOptions& options)
      : model_(model), options_(options), findings_(model.findings()) {}

  std::vector<Finding> run() {
    summarise_formats();
    for (const Layer& layer : model_.layers()) {
      if (layer.consistent) check_parameters(layer);
      check_activation(layer);
    }
    if (options_.codes) check_values();
    return std::move(findings_);
  }

 private:
  void add(Severity severity, std::string_view code, std::string subject, std::string message) {
    findings_.push_back({severity, code, std::move(subject), std::move(message), false});
  }

  // What the file claims to hold and the bits that its bytes really take, one line per format.
  void summarise_formats() {
    struct Sum {
      const formats::Format* format = nullptr;
      size_t layers = 0;
      uint64_t elements = 0, bytes = 0;
    };
    std::map<std::string, Sum> sums;
    for (const Layer& layer : model_.layers()) {
      Sum& sum = sums[label(layer.layout)];
      sum.format = layer.layout.format;
      ++sum.layers;
      sum.elements += element_count(layer.layout.shape).value_or(0);
      for (const size_t part : layer.parts) sum.bytes += tensor(model_, part).bytes;
    }
    for (const auto& [text, sum] : sums) {
      if (sum.elements > 0)
        add(Severity::note, "bits-per-weight", text,
            fmt::format("{} layers, stored in {:.3f} bits per weight.", sum.layers,
                        8.0 * static_cast<double>(sum.bytes) / static_cast<double>(sum.elements)));
      if (sum.format->support.comfyui) continue;
      const auto nearest = sum.format->support.nearest;
      add(options_.comfyui ? Severity::error : Severity::warning, "not-loadable-by-comfyui", text,
          fmt::format(
              "ComfyUI cannot load {}{}.", text,
              nearest.empty() ? std::string() : fmt::format("; the nearest format that it can is {}", nearest)));
    }
  }

  void check_parameters(const Layer& layer) {
    const auto& tensors = layer.layout.tensors;
    bool readable = true;
    for (size_t i = 1; i < tensors.size(); ++i) {
      // Scales of integer dtype (codebooks, packed exponents) are checked by the format alone.
      const auto& info = tensor(model_, layer.parts[i]);
      if (!facts(info.dtype).is_float || !is_readable(info.dtype)) continue;
      readable = check_finite(layer.parts[i], "non-finite-scale") && readable;
    }
    if (!readable || layer.layout.format->verify == nullptr) return;
    std::vector<std::string> problems;
    layer.layout.format->verify(layer.layout, model_.parameters(layer), problems);
    for (auto& problem : problems) add(Severity::error, "bad-parameter", layer.name, std::move(problem));
  }

  void check_activation(const Layer& layer) {
    if (layer.input_scale) {
      const auto& info = tensor(model_, *layer.input_scale);
      if (info.dtype != DType::f32)
        findings_.push_back({Severity::error, "input-scale-dtype", info.name,
                             fmt::format("The activation scale is {}; loaders need F32.", name(info.dtype)),
                             facts(info.dtype).is_float && is_readable(info.dtype)});
      if (element_count(info.shape) != uint64_t{1})
        add(Severity::error, "input-scale-shape", info.name,
            fmt::format("The activation scale has shape {}; loaders need one number.", to_string(info.shape)));
      else if (is_readable(info.dtype) && check_finite(*layer.input_scale, "non-finite-scale"))
        check_positive(*layer.input_scale);
    }
    if (!layer.pre_quant_scale) return;
    const auto& info = tensor(model_, *layer.pre_quant_scale);
    if (element_count(info.shape) != static_cast<uint64_t>(layer.layout.cols))
      add(Severity::error, "pre-quant-scale-shape", info.name,
          fmt::format("The smoothing factors have shape {}; the layer has {} inputs.", to_string(info.shape),
                      layer.layout.cols));
    if (!facts(info.dtype).is_float || !is_readable(info.dtype))
      add(Severity::error, "pre-quant-scale-dtype", info.name,
          fmt::format("The smoothing factors are {}; they must be floats.", name(info.dtype)));
    else
      check_finite(*layer.pre_quant_scale, "non-finite-scale");
  }

  bool check_finite(size_t index, std::string_view code) {
    const uint64_t bad = count_bad(index, [](float x) { return !std::isfinite(x); });
    const auto& info = tensor(model_, index);
    if (bad > 0)
      add(Severity::error, code, info.name,
          fmt::format("{} of {} values are not finite.", bad, element_count(info.shape).value_or(0)));
    return bad == 0;
  }

  void check_positive(size_t index) {
    if (count_bad(index, [](float x) { return !(x > 0); }) > 0)
      add(Severity::error, "scale-not-positive", tensor(model_, index).name, "A scale must be larger than zero.");
  }

  template <class Bad>
  uint64_t count_bad(size_t index, Bad bad) const {
    const WeightValues values(model_, index);
    std::vector<float> floats;
    std::vector<std::byte> bytes;
    uint64_t count = 0;
    for (const Run& run : cut_runs(values, nullptr, kRunElements)) {
      floats.resize(run.count);
      values.read(run.first, run.count, floats.data(), bytes);
      for (const float x : floats) count += bad(x) ? 1 : 0;
    }
    return count;
  }

  // --- every weight -------------------------------------------------------------------------------------------------

  // Layers are decoded with their scales, other float tensors are read as they are.
  void check_values() {
    const auto& tensors = model_.source().tensors();
    std::vector<size_t> todo;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const Role role = model_.role(i);
      const bool layer = role == Role::codes && model_.layers()[model_.layer_of(i)].consistent;
      const bool plain = role == Role::plain && facts(tensors[i].dtype).is_float && is_readable(tensors[i].dtype);
      if (!layer && !plain) continue;
      todo.push_back(i);
      bytes_total_ += tensors[i].bytes;
    }
    for (const size_t i : todo) check_weight(i);
  }

  void check_weight(size_t index) {
    const bool quantized = model_.role(index) == Role::codes;
    const WeightValues values =
        quantized ? WeightValues(model_, model_.layers()[model_.layer_of(index)]) : WeightValues(model_, index);
    const auto runs = cut_runs(values, nullptr, kRunElements);
    std::mutex mutex;
    uint64_t non_finite = 0;
    const uint64_t before = bytes_done_;
    formats::parallel_for(runs.size(), options_.threads, [&](size_t i) {
      std::vector<float> floats(runs[i].count);
      std::vector<std::byte> bytes;
      values.read(runs[i].first, runs[i].count, floats.data(), bytes);
      uint64_t bad = 0;
      for (const float x : floats) bad += std::isfinite(x) ? 0 : 1;
      const std::lock_guard lock(mutex);
      non_finite += bad;
      bytes_done_ += values.stored_bytes(runs[i].count);
      if (options_.progress) options_.progress(bytes_done_, bytes_total_);
    });
    bytes_done_ = before + tensor(model_, index).bytes;
    if (non_finite == 0) return;
    // A NaN in a tensor that was never quantized is the source's own; the file still says what it means.
    add(quantized ? Severity::error : Severity::warning, "non-finite-weight", tensor(model_, index).name,
        fmt::format("{} of {} values are not finite.", non_finite, values.elements()));
  }

  const Model& model_;
  const VerifyOptions& options_;
  std::vector<Finding> findings_;
  uint64_t bytes_done_ = 0, bytes_total_ = 0;
};

}  // namespace

std::vector<Finding> verify(const Model& model, const VerifyOptions& options) {
  return Verifier(model, options).run();
}

}  // namespace mezzotint::checkpoint
