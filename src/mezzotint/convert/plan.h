#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/convert/optimizers/method.h"
#include "mezzotint/convert/options.h"
#include "mezzotint/convert/preset.h"
#include "mezzotint/io/writer.h"

/// What a conversion will do, decided from the header, the options and the files that these name: no tensor data is
/// read.
namespace mezzotint::convert {

enum class Action : uint8_t {
  copy,        ///< bytes copied as they are
  keep_codes,  ///< a quantized layer already in the target format: codes untouched, parameters and markers put in order
  encode,      ///< float weight -> format (quantized or plain)
  reencode,    ///< quantized weight -> float32 -> format
  correct,     ///< a bias that changes with its layer's weight (bias_correction.h)
  rescale,     ///< a norm that takes over smoothing factors of the layers that read it (smoothing/norms.h)
  drop,        ///< asked for by --drop, or a marker or scale that has no layer any more
};
std::string_view name(Action action);

struct NormGroup;
struct MergedTensor;
class Merge;

/// A tensor of another model.
struct OtherTensor {
  const checkpoint::Model* model = nullptr;
  size_t tensor = 0;
};

/// One weight, or one tensor that is not a weight of a quantized layer.
struct PlanRow {
  std::string name;  ///< layer name (weights that are or become quantized) or tensor name
  Action action = Action::copy;
  std::string stored_as;  ///< copies: name in the output where it differs (old spellings of activation scales)
  std::string from;       ///< format label or dtype
  std::string to;         ///< format label or dtype; "" when dropped
  std::string reason;     ///< why, one clause
  Shape shape;            ///< logical shape of the weight or tensor
  size_t source = 0;      ///< source tensor: the weight (or the tensor itself)
  size_t layer = checkpoint::Model::npos;        ///< source layer, if it is quantized
  std::optional<formats::Layout> layout;         ///< of the output, for keep_codes, encode and reencode
  int effort = 0;                                ///< asked for: that of the run, or 0
  Method method;                                 ///< of finding parameters and codes, where they are
  const LayerStatistics* statistics = nullptr;   ///< of the layer's inputs, in Plan::calibration
  const MergedTensor* merge = nullptr;           ///< what adapters do to it (merging/merge.h), in Plan::merge
  const MergedTensor* scale_adapters = nullptr;  ///< what its scales hold besides, in Plan::scale_adapters
  const MergedTensor* input_adapters = nullptr;  ///< whose inputs its rounding spares, in Plan::input_adapters
  bool keeps_format = false;  ///< merged into a quantized layer that keeps its layout, marker and activation scales
  bool codes_only = false;    ///< and has no scales: a cast to 8 bits, as whole models are published
  std::optional<OtherTensor> original;    ///< encode: its values are these instead, in Plan::original
  size_t bias = checkpoint::Model::npos;  ///< row of the bias that this row corrects and writes
  std::optional<double> smoothing;        ///< exponent of the layer's smoothing factors, found in a first pass
  std::shared_ptr<const NormGroup> norm;  ///< takes over these factors; null: loaders do (pre_quant_scale)
  std::optional<float>
      input_scale;  ///< activation scale from them, to be stored; with smoothing only that there is one
  /// First output tensor (weight); layout.tensors follow one another, then marker, input_scale, pre_quant_scale.
  size_t output = 0;
  bool has_marker = false;
  std::string marker;  ///< marker text of a quantized output layer
  uint64_t bytes_in = 0, bytes_out = 0;
};

struct Plan {
  ConvertOptions options;
  std::filesystem::path input, output;
  std::string preset;                                          ///< chosen preset
  std::string preset_reason;                                   ///< why
  std::string component;                                       ///< prefix of the quantized component, "" = whole file
  std::vector<std::pair<std::string, const Preset*>> presets;  ///< whose rules are used, by prefix of names
  std::optional<Calibration> calibration;
  std::shared_ptr<const Merge> merge;                 ///< null where no adapters are merged
  std::shared_ptr<const Merge> scale_adapters;        ///< of ConvertOptions::scale_loras, or null
  std::shared_ptr<const Merge> input_adapters;        ///< of ConvertOptions::calibration_loras, or null
  std::shared_ptr<const checkpoint::Model> original;  ///< of ConvertOptions::merge_original, or null
  std::vector<PlanRow> rows;                          ///< in the order of the source's data
  std::vector<io::TensorSpec> specs;
  io::OutputPlan layout;              ///< exact bytes of the output
  std::vector<std::string> notes;     ///< things a person should know (lossy source, unknown architecture, ...)
  std::vector<std::string> warnings;  ///< e.g. ComfyUI cannot load the result
  uint64_t bytes_in = 0, bytes_out = 0;
  uint64_t peak_memory = 0;     ///< buffers of the pipeline in bytes with `threads` threads
  int threads = 1;              ///< as asked for, or fewer where the buffers of so many would not fit --max-memory
  double seconds_estimate = 0;  ///< from bytes and the stated rate
  uint64_t quantized_weights = 0, kept_weights = 0;  ///< element counts, for bits per weight
  double bits_per_weight = 0;  ///< stored bits of all 2-D weights and their parameters / their elements
};

/// Throws Error for options that make no sense for this file (unknown preset, bad regex, nothing to do with
/// --component), and those of Calibration::open, use_calibration (calibration/use.h), use_adapters (merging/use.h)
/// and lora_aware/use.h.
Plan make_plan(const checkpoint::Model& model, const std::filesystem::path& output, const ConvertOptions& options,
               int threads);

/// The plan as JSON (rows with decisions and sizes), for --json and for saving.
std::string to_json(const Plan& plan);

}  // namespace mezzotint::convert
