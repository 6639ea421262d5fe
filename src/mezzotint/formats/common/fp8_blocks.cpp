#include "mezzotint/formats/common/fp8_blocks.h"

#include <nlohmann/json.hpp>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats::fp8_blocks {
namespace {

constexpr float kFloor = 1e-12f;
constexpr int64_t kLargestBlock = 1 << 20;

float scale_of(float amax) {
  const float m = amax > kFloor ? amax : kFloor;
  const float reciprocal = 1.0f / m;
  const float qs = E4m3::kMax * reciprocal;
  return 1.0f / qs;
}

std::string not_a_multiple(char dimension, int64_t value, int64_t block) {
  return std::string(1, dimension) + " = " + std::to_string(value) + " is not a multiple of " + std::to_string(block);
}

/// The scale's shape for a weight that the blocks divide.
Shape scale_shape(Geometry geometry, const Shape& weight, int64_t block) {
  Shape shape = weight;
  switch (geometry) {
    case Geometry::row:
      shape.pop_back();
      if (shape == Shape{1}) shape.clear();
      break;
    case Geometry::tile:
      shape[shape.size() - 2] /= block;
      shape.back() /= block;
      break;
    case Geometry::group:
      shape.back() /= block;
      shape.push_back(1);
      break;
  }
  return shape;
}

std::string expected_scale(Geometry geometry) {
  switch (geometry) {
    case Geometry::row:
      return "one F32 scale per row";
    case Geometry::tile:
      return "one F32 scale for every square block";
    case Geometry::group:
      break;
  }
  return "F32 scales [N, K / block, 1], one for every block of columns within a row";
}

/// Columns of a block as the scale's shape tells them (0 for scales per row); nothing where it is another geometry's.
std::optional<int64_t> block_of(Geometry geometry, const Shape& weight, const Shape& scale) {
  const int64_t cols = weight.back();
  if (geometry == Geometry::row) {
    // [N, 1] is how PyTorch keeps the dimension that was reduced.
    if (scale == scale_shape(geometry, weight, 1) || scale == per_row_shape(weight)) return 0;
    const bool one_row = weight.size() == 2 && weight[0] == 1;
    if (scale == Shape(weight.begin(), weight.end() - 1) || (one_row && element_count(scale) == 1)) return 0;
    return std::nullopt;
  }
  const size_t at = geometry == Geometry::tile ? scale.size() - 1 : scale.size() - 2;
  if (scale.size() != weight.size() + (geometry == Geometry::tile ? 0 : 1)) return std::nullopt;
  const int64_t across = scale[at];
  if (across < 1 || cols % across != 0 || cols / across > kLargestBlock) return std::nullopt;
  const int64_t block = cols / across;
  if (geometry == Geometry::tile && weight[weight.size() - 2] % block != 0) return std::nullopt;
  if (scale != scale_shape(geometry, weight, block)) return std::nullopt;
  return block;
}

}  // namespace

Description describe(const Format& format, Geometry geometry, const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind == LayerKind::embedding)
    return {std::nullopt, "it is an embedding; the loaders of this format have it for linear layers only"};
  Layout layout = matrix_layout(format, facts.shape, complete_options(format, options), DType::f8_e4m3);
  layout.block_rows = 1;
  int64_t block = 0;
  if (geometry != Geometry::row) {
    block = layout.options.integer(kBlockSize);
    layout.block_cols = block;
    if (layout.cols % block != 0) return {std::nullopt, not_a_multiple('K', layout.cols, block)};
  }
  if (geometry == Geometry::tile) {
    layout.block_rows = block;
    if (layout.rows % block != 0) return {std::nullopt, not_a_multiple('N', layout.rows, block)};
  }
  layout.row_granule = layout.block_rows;
  layout.tensors.push_back({"weight_scale", DType::f32, scale_shape(geometry, facts.shape, block)});
  return {std::move(layout), ""};
}

ChoosePlan choose_plan(const Layout&, const ChooseOptions&) {
  return {.passes = 1, .stats = 0, .fused = true};
}

bool observe(const Layout& layout, const ChooseOptions&, int, const Tile& tile, float*, Parameters& parameters) {
  const int64_t block_cols = layout.block_cols != 0 ? layout.block_cols : layout.cols;
  const int64_t across = layout.cols / block_cols;
  float* scale = floats(parameters, 1) + tile.row0 / layout.block_rows * across;
  const bool non_finite = kernel::amax_blocks(source(tile), layout.block_rows, block_cols, scale, across);
  const int64_t count = tile.rows / layout.block_rows * across;
  for (int64_t i = 0; i < count; ++i) scale[i] = scale_of(scale[i]);
  return non_finite;
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  if (layout.block_cols != 0) object["group_size"] = layout.block_cols;
}

Recognition recognise(const Format& format, Geometry geometry, const StoredLayer& layer) {
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const bool own_label = layer.label == format.name;
  if (!own_label && !fp8_codes::is_family(layer.label) && !layer.label.empty()) return {};
  const auto broken = [&](std::string problem, Layout layout = {}) -> Recognition {
    if (!own_label) return {};
    return {Fit::broken, std::move(layout), {std::move(problem)}};
  };
  const LayerKind kind = weight.shape.size() == 3 ? LayerKind::expert_bank : LayerKind::linear;
  if (const std::string refusal = refuse_shape({weight.shape, kind}); !refusal.empty())
    return broken(tell(weight) + ", which cannot hold " + std::string(format.name) + ": " + refusal + ".");
  if (weight.dtype != DType::f8_e4m3)
    return broken(tell(weight) + ", but " + std::string(format.name) + " stores F8_E4M3.");
  if (scale == nullptr) return broken("weight_scale is missing; the codes mean nothing without it.");
  const auto block = is_scale_dtype(scale->dtype) ? block_of(geometry, weight.shape, scale->shape) : std::nullopt;
  if (!block)
    return broken(tell(*scale) + " beside a weight " + to_string(weight.shape) + ", but " + std::string(format.name) +
                  " has " + expected_scale(geometry) + ".");
  // A single scale is float8_e4m3fn to whoever does not say otherwise, and one per row of one column is no block.
  const bool simpler =
      element_count(scale->shape) == 1 || (geometry == Geometry::tile && scale->shape == per_row_shape(weight.shape));
  if (!own_label && simpler) return {};

  Options options;
  if (geometry != Geometry::row) options.set(kBlockSize, std::to_string(*block));
  Recognition recognition{own_label             ? Fit::labelled
                          : layer.label.empty() ? Fit::unlabelled
                                                : Fit::mislabelled,
                          *describe(format, geometry, {weight.shape, kind}, options).layout,
                          {}};
  const Shape& canonical = recognition.layout.tensors[1].shape;
  if (recognition.fit == Fit::mislabelled)
    recognition.problems.push_back("The marker says " + std::string(layer.label) + ", but the scale " +
                                   to_string(scale->shape) + " is that of " + std::string(format.name) + ".");
  if (own_label && scale->shape != canonical)
    recognition.problems.push_back(tell(*scale) + "; loaders expect " + to_string(canonical) + ".");
  if (scale->dtype == DType::f64) recognition.problems.push_back(tell(*scale) + "; loaders expect F32.");
  if (own_label && geometry != Geometry::row) {
    const int64_t told = marker_integer(layer, "group_size", *block);
    if (told != *block)
      recognition.problems.push_back("The marker's group_size is " + std::to_string(told) + ", but the scale's shape " +
                                     to_string(scale->shape) + " means blocks of " + std::to_string(*block) + ".");
  }
  return recognition;
}

}  // namespace mezzotint::formats::fp8_blocks
