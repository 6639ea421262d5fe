#include "mezzotint/formats/int8_blockwise/recognise.h"

#include "mezzotint/formats/common/int8_codes.h"
#include "mezzotint/formats/common/pieces.h"

namespace mezzotint::formats::int8_blockwise {
namespace {

constexpr int64_t kLargest = 1 << 20;

struct Blocks {
  int64_t size = 0;  ///< 0: the scale is not one of ours
  bool row_group = false;
};

/// Geometry and block size as the shape of the scale tells them. [N, 1] is left to scales per row: with one column the
/// two are the same thing.
Blocks blocks_of(const Shape& weight, const Shape& scale) {
  const int64_t rows = weight[weight.size() - 2], cols = weight.back();
  if (scale.size() == weight.size() + 1 && scale.back() == 1) {
    const int64_t groups = scale[scale.size() - 2];
    Shape expected = weight;
    expected.back() = groups;
    expected.push_back(1);
    if (groups < 1 || cols % groups != 0 || cols / groups > kLargest || scale != expected) return {};
    return {cols / groups, true};
  }
  if (scale.size() != weight.size() || (weight.size() == 3 && scale[0] != weight[0])) return {};
  const int64_t down = scale[scale.size() - 2], across = scale.back();
  if (down < 1 || across < 1 || rows % down != 0 || cols % across != 0 || rows / down != cols / across) return {};
  if (rows / down > kLargest) return {};
  return {rows / down, false};
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const bool own_label = layer.label == "int8_blockwise";
  const bool family = layer.label == "int8_tensorwise" || layer.label == "int8_axiswise";
  if (!own_label && !family && !layer.label.empty()) return {};
  if (!own_label && (weight.dtype != DType::i8 || scale == nullptr)) return {};

  const LayerKind kind = weight.shape.size() == 3 ? LayerKind::expert_bank : LayerKind::linear;
  const auto broken = [&](std::string problem) -> Recognition {
    if (!own_label) return {};
    return {Fit::broken, {}, {std::move(problem)}};
  };
  if (std::string problem = int8_codes::weight_problem(weight, kind, "int8_blockwise"); !problem.empty())
    return broken(std::move(problem));
  if (marker_flag(layer, "convrot", false)) return broken("The marker says that the weight is rotated (convrot).");
  if (scale == nullptr) return broken("weight_scale is missing; the codes mean nothing without it.");
  const Blocks blocks = is_scale_dtype(scale->dtype) ? blocks_of(weight.shape, scale->shape) : Blocks{};
  if (blocks.size == 0)
    return broken(tell(*scale) + " beside a weight " + to_string(weight.shape) +
                  ", but int8_blockwise has one F32 scale for every block of rows and columns.");
  // A single scale, or one per row of a one-column weight: without our name it is int8_tensorwise, which more loaders
  // know.
  const bool simpler = element_count(scale->shape) == 1 || scale->shape == per_row_shape(weight.shape);
  if (!own_label && simpler) return {};

  Options options;
  options.set(kBlockSize, std::to_string(blocks.size));
  options.set(kGeometry, blocks.row_group ? "row_group" : "tile");
  Recognition recognition =
      int8_codes::sound(layer, *scale, "int8_blockwise", *describe({weight.shape, kind}, options).layout);
  if (own_label) {
    const int64_t told = marker_integer(layer, "group_size", 128);
    if (told != blocks.size)
      recognition.problems.push_back("The marker's group_size is " + std::to_string(told) + ", but the scale's shape " +
                                     to_string(scale->shape) + " means blocks of " + std::to_string(blocks.size) + ".");
  }
  return recognition;
}

}  // namespace mezzotint::formats::int8_blockwise
