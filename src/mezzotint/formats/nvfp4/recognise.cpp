#include "mezzotint/formats/nvfp4/recognise.h"

#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/common/swizzle.h"

namespace mezzotint::formats::nvfp4 {
namespace {

constexpr int64_t kLargest = int64_t{1} << 40;  // of a dimension, so that products of two stay in range

/// "orig_shape" of the marker, if it is a shape whose padding gives these codes.
std::optional<Shape> marked_shape(const StoredLayer& layer, const Shape& padded) {
  if (layer.marker == nullptr || !layer.marker->is_object()) return std::nullopt;
  const auto found = layer.marker->find("orig_shape");
  if (found == layer.marker->end() || !found->is_array() || found->size() != padded.size()) return std::nullopt;
  Shape shape;
  for (size_t i = 0; i < padded.size(); ++i) {
    if (!(*found)[i].is_number_integer()) return std::nullopt;
    const auto dim = (*found)[i].get<int64_t>();
    if (dim < 1 || dim > kLargest) return std::nullopt;
    if ((i + 2 < padded.size() ? dim : round_up_to(dim, kAlignment)) != padded[i]) return std::nullopt;
    shape.push_back(dim);
  }
  return shape;
}

bool one_byte(DType dtype) {
  return dtype == DType::u8 || dtype == DType::i8;
}

/// Shape of the scales if they were stored without swizzling, as other programs for this number format do.
bool is_row_by_row(const Shape& scale, const Shape& codes) {
  Shape plain = codes;
  plain.back() = codes.back() / (kAlignment / 2);
  return scale == plain;
}

/// Logical shape: the weight's module knows it, and no loader asks the file. What the file tells, best first: the bias
/// (rows), the marker's orig_shape, the codes with their padding.
Shape logical_shape(const StoredLayer& layer, const Shape& padded, std::vector<std::string>& problems) {
  const std::optional<Shape> marked = marked_shape(layer, padded);
  Shape shape = marked.value_or(padded);
  int64_t& rows = shape[shape.size() - 2];
  if (layer.rows_hint && *layer.rows_hint != rows && *layer.rows_hint >= 1 && *layer.rows_hint <= kLargest &&
      round_up_to(*layer.rows_hint, kAlignment) == padded[padded.size() - 2]) {
    if (marked)
      problems.push_back("The marker's orig_shape has " + std::to_string(rows) + " rows, but the bias has " +
                         std::to_string(*layer.rows_hint) + ".");
    rows = *layer.rows_hint;
  }
  return shape;
}

std::string shape_problem(const TensorFacts& found, const StoredTensor& wanted) {
  return tell(found) + ", not " + std::string(name(wanted.dtype)) + " " + to_string(wanted.shape) + ".";
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const TensorFacts* global = layer.find("weight_scale_2");
  const bool own_label = layer.label == "nvfp4";
  if (!own_label && !layer.label.empty()) return {};
  const auto broken = [&](std::string problem) -> Recognition {
    if (!own_label) return {};
    return {Fit::broken, {}, {std::move(problem)}};
  };

  const size_t rank = weight.shape.size();
  const LayerKind kind = rank == 3 ? LayerKind::expert_bank : LayerKind::linear;
  if (!one_byte(weight.dtype)) return broken(tell(weight) + ", but nvfp4 stores two codes to a byte, U8.");
  if (std::string refusal = refuse_shape({weight.shape, kind}); !refusal.empty())
    return broken(tell(weight) + ", which cannot hold nvfp4: " + refusal + ".");
  if (weight.shape.back() > kLargest || weight.shape[rank - 2] > kLargest) return broken(tell(weight) + ".");
  Shape padded = weight.shape;
  padded.back() *= 2;
  if (padded.back() % kAlignment != 0 || padded[rank - 2] % kAlignment != 0)
    return broken(tell(weight) + ", but rows and columns (two to a byte) of nvfp4 are padded to multiples of 16.");

  Recognition recognition{Fit::none, {}, {}};
  recognition.layout = *describe({logical_shape(layer, padded, recognition.problems), kind}, {}).layout;
  const StoredTensor& wanted_scale = recognition.layout.tensors[1];
  const StoredTensor& wanted_global = recognition.layout.tensors[2];
  bool readable = true;
  const auto unreadable = [&](std::string problem) {
    recognition.problems.push_back(std::move(problem));
    readable = false;
  };
  if (scale == nullptr) {
    unreadable("weight_scale is missing; the codes mean nothing without it.");
  } else if (scale->dtype != DType::f8_e4m3 && !one_byte(scale->dtype)) {
    unreadable(shape_problem(*scale, wanted_scale));
  } else if (is_row_by_row(scale->shape, weight.shape) && scale->shape != wanted_scale.shape) {
    unreadable(tell(*scale) + ": scales row by row, but nvfp4 stores them in tiles of 128 x 4, " +
               to_string(wanted_scale.shape) + ".");
  } else if (element_count(scale->shape) != element_count(wanted_scale.shape)) {
    // Loaders take any shape of the right size: the rows and columns of the buffer mean nothing.
    unreadable(shape_problem(*scale, wanted_scale));
  }
  if (global == nullptr) {
    unreadable("weight_scale_2 is missing; the codes mean nothing without it.");
  } else if (const auto count = element_count(global->shape).value_or(0);
             !is_scale_dtype(global->dtype) || (count != 1 && global->shape != wanted_global.shape)) {
    unreadable(shape_problem(*global, wanted_global));
  } else if (global->dtype != DType::f32) {
    recognition.problems.push_back(tell(*global) + "; loaders expect F32.");
  }
  if (!own_label && !readable) return {};
  recognition.fit = !readable ? Fit::broken : own_label ? Fit::labelled : Fit::unlabelled;
  return recognition;
}

}  // namespace mezzotint::formats::nvfp4
