#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/int8_codes.h"
#include "mezzotint/formats/int8_tensorwise/recognise.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {

extern const Format format_int8_tensorwise;

namespace int8_tensorwise {
namespace {

constexpr float kFloor = 1e-30f;
constexpr int kLowest = -128;

constexpr Alias kAliases[] = {{"int8", "scaling=row"}, {"int8_row", "scaling=row"}, {"int8_tensor", "scaling=tensor"}};
constexpr OptionSpec kOptions[] = {{kScaling, OptionSpec::Type::choice, "tensor", "tensor|row",
                                    "one scale for the whole weight, or one for every row (more accurate)"}};

bool by_row(const Layout& layout) {
  return layout.options.text(kScaling) == "row";
}

kernel::Scales scales(const Layout& layout, const Parameters& parameters, int64_t row0) {
  return {.data = floats(parameters, 1),
          .block_rows = by_row(layout) ? 1 : layout.rows,
          .block_cols = 0,
          .stride = 1,
          .row0 = row0};
}

ChoosePlan choose_plan(const Layout& layout, const ChooseOptions&) {
  if (by_row(layout)) return {.passes = 1, .stats = 0, .fused = true};
  return {.passes = 1, .stats = static_cast<size_t>(layout.total_rows()), .fused = false};
}

bool observe(const Layout& layout, const ChooseOptions&, int, const Tile& tile, float* stats, Parameters& parameters) {
  if (!by_row(layout)) {
    // One number per tile, at its first row; the other rows keep the zero they were given.
    const kernel::Amax amax = kernel::amax(source(tile));
    stats[tile.row0] = amax.value;
    return amax.non_finite;
  }
  float* scale = floats(parameters, 1) + tile.row0;
  const bool non_finite = kernel::amax_rows(source(tile), scale);
  for (int64_t r = 0; r < tile.rows; ++r) scale[r] = int8_codes::scale_of(scale[r], kFloor);
  return non_finite;
}

void finish(const Layout& layout, const ChooseOptions&, int, float* stats, Parameters& parameters) {
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const float* rows = stats + expert * layout.rows;
    floats(parameters, 1)[expert] = int8_codes::scale_of(*std::max_element(rows, rows + layout.rows), kFloor);
  }
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  int8_codes::encode(layout, scales(layout, parameters, tile.row0), kLowest, tile, rounding, codes);
}

void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  int8_codes::decode(layout, scales(layout, parameters, row0), rows, col0, cols, codes, out, out_stride);
}

void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t row = tile.row0 + r;
    const float scale = floats(parameters, 1)[by_row(layout) ? row : row / layout.rows];
    for (int64_t c = 0; c < tile.cols; ++c)
      bound[r * tile.cols + c] = int8_codes::error_bound(values[r * tile.row_stride + c], scale);
  }
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 1, exponent);
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  if (by_row(layout)) object["per_row"] = true;
}

void verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
}

}  // namespace

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  Layout layout =
      matrix_layout(format_int8_tensorwise, facts.shape, complete_options(format_int8_tensorwise, options), DType::i8);
  layout.block_rows = by_row(layout) ? 1 : 0;
  layout.tensors.push_back(
      {"weight_scale", DType::f32, by_row(layout) ? per_row_shape(facts.shape) : per_matrix_shape(facts.shape)});
  return {std::move(layout), ""};
}

}  // namespace int8_tensorwise

const Format format_int8_tensorwise{
    .name = "int8_tensorwise",
    .summary = "8-bit integers, one scale per weight or per row",
    .aliases = int8_tensorwise::kAliases,
    .options = int8_tensorwise::kOptions,
    .support = {.comfyui = true,
                .loaders = "ComfyUI (layers and embeddings)",
                .fast_on = "NVIDIA SM 7.5 and newer, and any CPU"},
    .describe = int8_tensorwise::describe,
    .choose_plan = int8_tensorwise::choose_plan,
    .observe = int8_tensorwise::observe,
    .finish = int8_tensorwise::finish,
    .encode = int8_tensorwise::encode,
    .decode = int8_tensorwise::decode,
    .error_bound = int8_tensorwise::error_bound,
    .scale_by_power_of_two = int8_tensorwise::scale_by_power_of_two,
    .marker = int8_tensorwise::marker,
    .recognise = int8_tensorwise::recognise,
    .verify = int8_tensorwise::verify,
};

}  // namespace mezzotint::formats
