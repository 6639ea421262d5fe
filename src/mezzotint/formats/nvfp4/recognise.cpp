#include "mezzotint/formats/nvfp4/recognise.h"

#include "mezzotint/formats/common/padded.h"
#include "mezzotint/formats/common/pieces.h"

namespace mezzotint::formats::nvfp4 {
namespace {

bool one_byte(DType dtype) {
  return dtype == DType::u8 || dtype == DType::i8;
}

/// Shape of the scales if they were stored without swizzling, as other programs for this number format do.
bool is_row_by_row(const Shape& scale, const Shape& codes) {
  Shape plain = codes;
  plain.back() = codes.back() / (kAlignment / 2);
  return scale == plain;
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
  if (weight.shape.back() > kLargestDimension || weight.shape[rank - 2] > kLargestDimension)
    return broken(tell(weight) + ".");
  Shape padded = weight.shape;
  padded.back() *= 2;
  if (padded.back() % kAlignment != 0 || padded[rank - 2] % kAlignment != 0)
    return broken(tell(weight) + ", but rows and columns (two to a byte) of nvfp4 are padded to multiples of 16.");

  Recognition recognition{Fit::none, {}, {}};
  recognition.layout = *describe({logical_shape(layer, padded, kAlignment, recognition.problems), kind}, {}).layout;
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
