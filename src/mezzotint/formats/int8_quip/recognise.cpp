#include "mezzotint/formats/int8_quip/recognise.h"

#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/int8_quip/decode.h"

namespace mezzotint::formats {

extern const Format format_int8_quip;

namespace int8_quip {
namespace {

constexpr std::string_view kLabel = "int8_tensorwise";  // what the writer says

bool is_power_of_2(int64_t n) {
  return n > 0 && (n & (n - 1)) == 0;
}

bool has_count(const TensorFacts& tensor, int64_t count) {
  return element_count(tensor.shape) == static_cast<uint64_t>(count);
}

/// "orig_shape" of a marker, where somebody wrote one.
Shape original_shape(const StoredLayer& layer) {
  Shape shape;
  if (layer.marker == nullptr) return shape;
  const auto found = layer.marker->find("orig_shape");
  if (found == layer.marker->end() || !found->is_array()) return shape;
  for (const auto& dim : *found)
    if (dim.is_number_integer()) shape.push_back(dim.get<int64_t>());
  return shape;
}

/// Rows and columns of the weight in the padded matrix. The file tells them only by the way; where it does not, they
/// are the padded ones.
Shape logical_shape(const StoredLayer& layer, bool padded) {
  const Shape& stored = layer.tensors[0].shape;
  if (!padded) return stored;
  const auto fits = [&](int64_t n, size_t dim) { return n > stored[dim] / 2 && n <= stored[dim]; };
  Shape shape = original_shape(layer);
  if (shape.size() == 2 && fits(shape[0], 0) && fits(shape[1], 1)) return shape;
  shape = stored;
  if (layer.rows_hint && fits(*layer.rows_hint, 0)) shape[0] = *layer.rows_hint;
  const TensorFacts* smooth = layer.find(kSmooth);
  if (smooth != nullptr && smooth->shape.size() == 1 && fits(smooth->shape[0], 1)) shape[1] = smooth->shape[0];
  return shape;
}

Recognition broken(std::string problem) {
  return {Fit::broken, {}, {std::move(problem)}};
}

/// A parameter of F32, or what is wrong with it.
std::string add_floats(const StoredLayer& layer, std::string_view suffix, const Shape& shape, Layout& layout) {
  const TensorFacts* tensor = layer.find(suffix);
  if (tensor == nullptr) return std::string(suffix) + " is missing; the codes mean nothing without it.";
  if (!is_scale_dtype(tensor->dtype) || element_count(tensor->shape) != element_count(shape))
    return tell(*tensor) + ", not F32 " + to_string(shape) + ".";
  layout.tensors.push_back({std::string(suffix), DType::f32, shape});
  return "";
}

/// The transform's own tensors, after weight and weight_scale.
std::string add_transform(const StoredLayer& layer, bool hadamard, Layout& layout) {
  const int64_t rows = layout.stored_rows, cols = layout.row_bytes;
  std::string problem;
  if (hadamard) {
    problem = add_floats(layer, kSignRow, {rows}, layout);
    if (problem.empty()) problem = add_floats(layer, kSignCol, {cols}, layout);
    for (const std::string_view suffix : {kFlag, kSizeOut, kSizeIn})
      if (const TensorFacts* tensor = layer.find(suffix); tensor != nullptr && problem.empty()) {
        const DType dtype = suffix == kFlag ? DType::i8 : DType::i32;
        if (tensor->dtype != dtype || !has_count(*tensor, 1)) problem = tell(*tensor) + ", not one integer.";
        layout.tensors.push_back({std::string(suffix), dtype, {}});
      }
  } else {
    const TensorFacts* row = layer.find(kDenseRow);
    const bool signs = row != nullptr && has_count(*row, rows) && rows > 1;
    problem = add_floats(layer, kDenseRow, signs ? Shape{rows} : Shape{rows, rows}, layout);
    if (problem.empty()) problem = add_floats(layer, kDenseCol, signs ? Shape{cols} : Shape{cols, cols}, layout);
  }
  if (problem.empty() && layer.find(kSmooth) != nullptr) problem = add_floats(layer, kSmooth, {layout.cols}, layout);
  return problem;
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  const bool hadamard = layer.find(kFlag) != nullptr || layer.find(kSignRow) != nullptr;
  if (!hadamard && layer.find(kDenseRow) == nullptr) return {};
  if (layer.label != kLabel && !layer.label.empty()) return {};
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  if (layer.label.empty() && (weight.dtype != DType::i8 || scale == nullptr)) return {};
  if (weight.dtype != DType::i8 || weight.shape.size() != 2 || !refuse_shape({weight.shape}).empty())
    return broken(tell(weight) + ", but a transformed weight (QuIP) is I8 with two dimensions.");
  const int64_t rows = weight.shape[0], cols = weight.shape[1];
  if (hadamard && !(is_power_of_2(rows) && is_power_of_2(cols)))
    return broken(tell(weight) + ", but a transformed weight (QuIP) is padded to powers of two.");
  if (scale == nullptr) return broken("weight_scale is missing; the codes mean nothing without it.");
  const bool single = has_count(*scale, 1);
  if (!is_scale_dtype(scale->dtype) || !(single || has_count(*scale, rows)))
    return broken(tell(*scale) + ", not F32 [] or " + to_string(Shape{rows, 1}) + ".");

  Layout layout;
  layout.format = &format_int8_quip;
  layout.shape = logical_shape(layer, hadamard);
  layout.rows = layout.row_granule = layout.shape[0];
  layout.cols = layout.shape[1];
  layout.stored_rows = rows;
  layout.row_bytes = cols;
  layout.decodes_whole = true;
  layout.tensors = {{"weight", DType::i8, weight.shape},
                    {"weight_scale", DType::f32, single ? Shape{} : Shape{rows, 1}}};
  layout.flaw =
      "The weight is stored transformed (QuIP), and ComfyUI would take its codes as they are. Convert it to "
      "have codes that load.";
  if (std::string problem = add_transform(layer, hadamard, layout); !problem.empty()) return broken(std::move(problem));
  Recognition recognition{layer.label.empty() ? Fit::unlabelled : Fit::labelled, std::move(layout), {}};
  if (hadamard && original_shape(layer).empty() && layer.find(kSmooth) == nullptr)
    recognition.layout.flaw += " The file does not tell how many of its " + std::to_string(cols) +
                               " columns are padding: all are taken as the weight's.";
  return recognition;
}

}  // namespace int8_quip
}  // namespace mezzotint::formats
