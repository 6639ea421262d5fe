#include <algorithm>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/common/stored_floats.h"
#include "mezzotint/formats/svdquant_w4a4/layout.h"

namespace mezzotint::formats {

extern const Format format_svdquant_w4a4;

namespace svdquant_w4a4 {
namespace {

Description describe(const LayerFacts& facts, const Options&) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  return {std::nullopt, "it is only read: its projections come from a calibration that this program does not do"};
}

/// [N, K] of a plain or tiled weight; empty where it is neither.
Shape matrix_of(const TensorFacts& weight) {
  const Shape& shape = weight.shape;
  if (weight.dtype != DType::i8 || element_count(shape).value_or(0) == 0) return {};
  if (shape.size() == 2 && shape[1] % (kGroup / 2) == 0) return {shape[0], 2 * shape[1]};
  if (shape.size() == 4 && shape[2] == kTileRows / 4 && shape[3] == 2 * kGroup)
    return {shape[0] * kTileRows, shape[1] * kGroup};
  return {};
}

void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  const std::vector<float> smooth = widened(layout, parameters, kSmoothAt);
  if (std::find(smooth.begin(), smooth.end(), 0.0f) != smooth.end())
    problems.push_back(std::string(kSmooth) + " holds zeros, and inputs are divided by it.");
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  const bool own_label = layer.label == format_svdquant_w4a4.name;
  const bool evidence = layer.find(kDown) != nullptr || layer.find(kUp) != nullptr || layer.find(kSmooth) != nullptr;
  if (!own_label && (!layer.label.empty() || !evidence)) return {};
  const auto broken = [](std::string problem) -> Recognition { return {Fit::broken, {}, {std::move(problem)}}; };
  const TensorFacts& weight = layer.tensors[0];
  const Shape matrix = matrix_of(weight);
  if (matrix.empty())
    return broken(tell(weight) +
                  ", but svdquant_w4a4 packs two codes into each byte, I8 [N, K / 2] or [N / 128, K / 64, 32, 128].");
  const int64_t rows = matrix[0], cols = matrix[1], groups = cols / kGroup;
  const TensorFacts* down = layer.find(kDown);
  const int64_t rank = down != nullptr && down->shape.size() == 2 ? down->shape[1] : 0;
  if (down != nullptr && rank < 1) return broken(tell(*down) + ", not a matrix [K, rank].");

  Layout layout = matrix_layout(format_svdquant_w4a4, matrix, {}, DType::i8);
  layout.tensors[0].shape = weight.shape;
  layout.row_bytes = cols / 2;
  layout.row_granule = weight.shape.size() == 4 ? kTileRows : 1;
  layout.block_rows = 1;
  layout.block_cols = kGroup;
  std::vector<Shape> scale_shapes = {{groups, rows}}, up_shapes = {{rows, rank}};
  if (rows % kTileRows == 0) {
    scale_shapes.push_back({rows / kTileRows, groups, kTileRows});
    up_shapes.push_back({rows / kTileRows, rank, kTileRows});
  }
  std::string problem = keep_floats(layer, kScale, scale_shapes, layout);
  if (problem.empty()) problem = keep_floats(layer, kDown, {{cols, rank}}, layout);
  if (problem.empty()) problem = keep_floats(layer, kUp, up_shapes, layout);
  if (problem.empty()) problem = keep_floats(layer, kSmooth, {{cols}}, layout);
  if (!problem.empty()) return broken(std::move(problem));
  return {Fit::labelled, std::move(layout), {}};
}

}  // namespace svdquant_w4a4

const Format format_svdquant_w4a4{
    .name = "svdquant_w4a4",
    .summary = "4-bit integers beside a low-rank part, inputs smoothed (read only)",
    .support = {.comfyui = false,
                .loaders = "programs that use comfy-kitchen's SVDQuant layout",
                .fast_on = "NVIDIA SM 8.0 and newer",
                .nearest = "convrot_w4a4"},
    .writable = false,
    .describe = svdquant_w4a4::describe,
    .encode = nullptr,
    .decode = svdquant_w4a4::decode,
    .error_bound = nullptr,
    .recognise = svdquant_w4a4::recognise,
    .verify = svdquant_w4a4::verify,
};

}  // namespace mezzotint::formats
