#include "mezzotint/formats/common/int8_codes.h"
#include "mezzotint/formats/int8_tensorwise/layout.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats::int8_tensorwise {
namespace {

enum class Form : uint8_t { none, tensor, row };

struct Scaling {
  Form form = Form::none;
  std::string problem;  ///< of the shape, where ComfyUI would trip over it
};

/// Which of the two scalings a scale of this shape means. One-element scales of one-row weights could be either; the
/// marker's per_row tells.
Scaling scaling_of(const Shape& weight, const TensorFacts& scale, bool per_row) {
  const Shape& shape = scale.shape;
  const bool bank = weight.size() == 3;
  const uint64_t count = element_count(shape).value_or(0);
  const uint64_t rows = static_cast<uint64_t>(bank ? weight[0] * weight[1] : weight[0]);
  if (shape == per_row_shape(weight)) return {Form::row, ""};
  if (shape.empty() || shape == per_matrix_shape(weight)) return {Form::tensor, ""};
  // From here on loaders trip: [1] becomes per-row when a LoRA is applied, [N] cannot be dequantized (or comes out
  // wrong where N == K).
  if (count == 1)
    return {rows == 1 && per_row ? Form::row : Form::tensor,
            tell(scale) + "; ComfyUI takes a single scale only as []."};
  const bool flat = bank ? shape == Shape{weight[0], weight[1]} : shape == Shape{weight[0]};
  if (flat)
    return {Form::row,
            tell(scale) + "; ComfyUI dequantizes scales per row only as " + to_string(per_row_shape(weight)) + "."};
  return {};
}

/// The marker's rotation: its group size (0 = none), or what is wrong with it.
struct Rotation {
  int64_t group = 0;
  std::string problem;
  std::string flaw;
};

Rotation rotation_of(const StoredLayer& layer, int64_t cols) {
  if (!marker_flag(layer, kConvrot, false)) return {};
  const int64_t group = marker_integer(layer, kGroupsize, kDefaultGroupsize);
  const std::string named = std::string(kGroupsize) + " " + std::to_string(group);
  if (group < 2 || group > kernel::kLargestConvrotGroup || (group & (group - 1)) != 0)
    return {0, "The marker says " + named + ", for which there is no rotation.", ""};
  if (cols % group != 0)
    return {0, "The marker says " + named + ", which does not divide the " + std::to_string(cols) + " columns.", ""};
  if (!kernel::is_convrot_group(group))
    return {group, "",
            "The weight is rotated with " + named +
                ", which is no power of 4: convert_to_quant took another matrix (Sylvester's) there, and ComfyUI fails "
                "at the first forward. Convert it to have codes that load."};
  if (layer.tensors[0].shape.size() == 3)
    return {group, "",
            "The bank of experts is rotated, which ComfyUI does not undo. Convert it to have codes that load."};
  return {group, "", ""};
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const bool own_label = layer.label == "int8_tensorwise";
  // convert_to_quant's legacy converter writes int8_blockwise over scales per tensor and per row; int8_axiswise is
  // another name for scales per row.
  const bool family = layer.label == "int8_blockwise" || layer.label == "int8_axiswise";
  if (!own_label && !family && !layer.label.empty()) return {};
  // Stored transformed under this label (QuIP): another format's.
  for (const char* suffix : {"hadamard_quip", "sign_row", "quip_s_u"})
    if (layer.find(suffix) != nullptr) return {};
  if (!own_label && (weight.dtype != DType::i8 || scale == nullptr)) return {};

  const LayerKind kind = weight.shape.size() == 3 ? LayerKind::expert_bank : LayerKind::linear;
  const auto broken = [&](std::string problem) -> Recognition {
    if (!own_label) return {};
    return {Fit::broken, {}, {std::move(problem)}};
  };
  if (std::string problem = int8_codes::weight_problem(weight, kind, "int8_tensorwise"); !problem.empty())
    return broken(std::move(problem));
  const Rotation rotation = rotation_of(layer, weight.shape.back());
  if (!rotation.problem.empty()) return broken(rotation.problem);
  if (scale == nullptr) return broken("weight_scale is missing; the codes mean nothing without it.");

  const bool per_row = marker_flag(layer, "per_row", layer.label == "int8_axiswise");
  Scaling scaling = is_scale_dtype(scale->dtype) ? scaling_of(weight.shape, *scale, per_row) : Scaling{};
  if (scaling.form == Form::none)
    return broken(tell(*scale) + ", but int8_tensorwise has one scale, F32 " +
                  to_string(per_matrix_shape(weight.shape)) + ", or one per row, F32 " +
                  to_string(per_row_shape(weight.shape)) + ".");

  Layout layout = layout_of({weight.shape, kind}, scaling.form == Form::row, rotation.group);
  layout.flaw = rotation.flaw;
  Recognition recognition = int8_codes::sound(layer, *scale, "int8_tensorwise", std::move(layout));
  if (!scaling.problem.empty()) recognition.problems.push_back(std::move(scaling.problem));
  return recognition;
}

}  // namespace mezzotint::formats::int8_tensorwise
