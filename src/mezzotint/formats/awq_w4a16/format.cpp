#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/common/stored_floats.h"

namespace mezzotint::formats {

extern const Format format_awq_w4a16;

namespace awq_w4a16 {
namespace {

constexpr std::string_view kScale = "weight_scale", kZeros = "weight_zeros";

Description describe(const LayerFacts& facts, const Options&) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  return {std::nullopt, "it is only read: its codes come from a calibration that this program does not do"};
}

/// (u4 - 8) * scale + zero: two float32 operations.
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  const std::vector<float> scales = widened(layout, parameters, 1), zeros = widened(layout, parameters, 2);
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* row = codes + r * layout.row_bytes;
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t col = col0 + c;
      const int code = std::to_integer<int>(row[col / 2] >> (col % 2 * 4)) & 15;
      const auto group = static_cast<size_t>(col / layout.block_cols * layout.rows + row0 + r);
      out[r * out_stride + c] = static_cast<float>(code - 8) * scales[group] + zeros[group];
    }
  }
}

Recognition recognise(const StoredLayer& layer) {
  const bool own_label = layer.label == format_awq_w4a16.name;
  if (!own_label && (!layer.label.empty() || layer.find(kZeros) == nullptr)) return {};
  const auto broken = [](std::string problem) -> Recognition { return {Fit::broken, {}, {std::move(problem)}}; };
  const TensorFacts& weight = layer.tensors[0];
  if (weight.dtype != DType::i8 || !refuse_shape({weight.shape}).empty())
    return broken(tell(weight) + ", but awq_w4a16 packs two codes into each byte of a matrix of I8.");
  const TensorFacts* scale = layer.find(kScale);
  if (scale == nullptr) return broken("weight_scale is missing; the codes mean nothing without it.");
  const int64_t rows = weight.shape[0], cols = 2 * weight.shape[1];
  const int64_t groups = scale->shape.size() == 2 ? scale->shape[0] : 0;
  if (groups < 1 || cols % groups != 0)
    return broken(tell(*scale) + ", but awq_w4a16 has one for every group of columns and row, [K / 64, N].");

  Layout layout = matrix_layout(format_awq_w4a16, {rows, cols}, {}, DType::i8);
  layout.tensors[0].shape = weight.shape;
  layout.row_bytes = cols / 2;
  layout.block_rows = 1;
  layout.block_cols = cols / groups;
  for (const std::string_view suffix : {kScale, kZeros})
    if (std::string problem = keep_floats(layer, suffix, {{groups, rows}}, layout); !problem.empty())
      return broken(std::move(problem));
  return {Fit::labelled, std::move(layout), {}};
}

}  // namespace
}  // namespace awq_w4a16

const Format format_awq_w4a16{
    .name = "awq_w4a16",
    .summary = "4-bit integers with a scale and a zero point per group of columns (read only)",
    .support = {.comfyui = false,
                .loaders = "programs that use comfy-kitchen's AWQ layout",
                .fast_on = "nothing known: comfy-kitchen dequantizes",
                .nearest = "asym_w4a8_int8"},
    .writable = false,
    .describe = awq_w4a16::describe,
    .encode = nullptr,
    .decode = awq_w4a16::decode,
    .error_bound = nullptr,
    .recognise = awq_w4a16::recognise,
};

}  // namespace mezzotint::formats
