#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/checkpoint/model.h"

/// A low-rank correction of what quantization lost, as a LoRA file (docs/correct.md): W ~ W_q + up * down.
namespace mezzotint::convert {

struct CorrectionOptions {
  int64_t rank = 32;
  DType dtype = DType::f16;  ///< of the factors: f16 (closer than bf16, and no LoRA comes near its range), bf16 or f32
  std::vector<std::filesystem::path> calibration;  ///< files of activation statistics; none = the error of the weight
  uint64_t max_memory = 1ull << 30;  ///< errors of a layer are kept while they fit half of it, else decoded each pass
  int threads = 0;                   ///< 0 = all cores; no bit depends on it
  bool overwrite = false;
  std::function<void(uint64_t done, uint64_t total, const std::string& layer)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

/// What the error of a layer is measured by, and made small in.
enum class CorrectionMetric : uint8_t {
  weight,   ///< ||E||: no data
  moments,  ///< ||E diag(E[x^2])^1/2||: inputs as if they were uncorrelated
  inputs,   ///< ||E (X'X/T)^1/2||: the error of the layer's output
};
std::string_view name(CorrectionMetric metric);

struct CorrectedLayer {
  std::string name;      ///< of the layer in the models
  std::string key;       ///< in the LoRA file; "" where nothing is written
  std::string from, to;  ///< format label or dtype in either model
  int64_t rows = 0, cols = 0, rank = 0;
  CorrectionMetric metric = CorrectionMetric::weight;
  double weight_before = 0, weight_after = 0;  ///< ||E|| / ||W||
  /// ||X E'|| / ||X W'|| by the statistics; only with data.
  std::optional<double> output_before, output_after;
  std::string reason;  ///< why nothing is written, or ""

  double before() const { return output_before.value_or(weight_before); }
  double after() const { return output_after.value_or(weight_after); }
};

struct Correction {
  std::vector<CorrectedLayer> layers;  ///< those that differ, largest error first (before())
  uint64_t identical = 0;              ///< layers stored alike
  /// sqrt(sum ||E||^2 / sum ||W||^2) over all layers that differ; of outputs, the root mean square over those with
  /// data.
  double weight_before = 0, weight_after = 0;
  std::optional<double> output_before, output_after;
  uint64_t written = 0;  ///< layers in the file; 0 = no file was written
  uint64_t bytes = 0;    ///< of the file
  std::vector<std::string> warnings;
};

/// Corrects every layer with a matrix that `quantized` stores in fewer than 16 bits and `original` has, too. A layer is
/// left out where no ComfyUI LoRA reaches it, where the norm in front took over its smoothing factors, or where its
/// correction, rounded to `dtype`, is not below its error by the metric. Biases stay as they are. The bits depend on
/// files and options, not on threads. Memory: blocks of a layer, its vectors, its moment matrix, and the factors of all
/// layers, which are the file.
///
/// Throws Error "bad-option" (rank or dtype), "no-common-layers", "cancelled", those of Calibration::open and of
/// io::Writer.
Correction write_correction(const checkpoint::Model& original, const checkpoint::Model& quantized,
                            const std::filesystem::path& output, const CorrectionOptions& options);

}  // namespace mezzotint::convert
