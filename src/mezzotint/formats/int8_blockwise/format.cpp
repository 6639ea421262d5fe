#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/int8_codes.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/int8_blockwise/recognise.h"
#include "mezzotint/kernel/gemm/int8_gemm.h"
#include "mezzotint/kernel/reduce.h"
#include "mezzotint/kernel/search.h"

namespace mezzotint::formats {

extern const Format format_int8_blockwise;

namespace int8_blockwise {
namespace {

constexpr int kLowest = -127;
// The floors of the writers of each geometry: they keep blocks of zeros finite.
constexpr float kTileFloor = 1e-8f;
constexpr float kRowGroupFloor = 1e-12f;

constexpr OptionSpec kOptions[] = {
    {kBlockSize, OptionSpec::Type::integer, "128", "1..1048576", "rows and columns that share a scale"},
    {kGeometry, OptionSpec::Type::choice, "tile", "tile|row_group",
     "square tiles, or groups of block_size columns within each row"}};

bool row_group(const Layout& layout) {
  return layout.block_rows == 1 && layout.options.text(kGeometry) == "row_group";
}
int64_t blocks_across(const Layout& layout) {
  return layout.cols / layout.block_cols;
}

// Experts lie below one another, and their rows are multiples of the block, so block rows just count on.
kernel::Scales scales(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t col0) {
  return kernel::Scales::blocks(floats(parameters, 1), blocks_across(layout), layout.block_rows, layout.block_cols,
                                row0, col0);
}

ChoosePlan choose_plan(const Layout&, const ChooseOptions&) {
  return {.passes = 1, .stats = 0, .fused = true};
}

bool observe(const Layout& layout, const ChooseOptions& choose, int, const Tile& tile, float*, Parameters& parameters) {
  const int64_t across = blocks_across(layout);
  float* scale = floats(parameters, 1) + tile.row0 / layout.block_rows * across;
  const bool non_finite = kernel::amax_blocks(source(tile), layout.block_rows, layout.block_cols, scale, across);
  const float floor = row_group(layout) ? kRowGroupFloor : kTileFloor;
  const int64_t count = tile.rows / layout.block_rows * across;
  for (int64_t i = 0; i < count; ++i) scale[i] = int8_codes::scale_of(scale[i], floor);
  if (choose.effort > 0)
    kernel::search_int8_blocks(source(tile), layout.block_rows, layout.block_cols, column_weight(layout, choose),
                               choose.effort == 1 ? kernel::ScaleSearch::fast : kernel::ScaleSearch::full, floor, scale,
                               across);
  return non_finite;
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  int8_codes::encode(layout, scales(layout, parameters, tile.row0, tile.col0), kLowest, tile, rounding, codes);
}

template <class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride) {
  int8_codes::decode(layout, scales(layout, parameters, row0, col0), rows, col0, cols, codes, out, out_stride);
}

void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* row = floats(parameters, 1) + (tile.row0 + r) / layout.block_rows * blocks_across(layout);
    for (int64_t c = 0; c < tile.cols; ++c)
      bound[r * tile.cols + c] =
          int8_codes::error_bound(values[r * tile.row_stride + c], row[(tile.col0 + c) / layout.block_cols]);
  }
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 1, exponent);
}

MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  const bool native = layout.block_rows == kernel::kInt8Block && layout.block_cols == kernel::kInt8Block;
  return matmul_forms::scaled(layout, parameters, expert, kernel::ElementCode::int8,
                              native ? InputCodes::int8_blocks : InputCodes::none);
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  object["group_size"] = layout.block_cols;
}

void verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
}

std::string not_a_multiple(char dimension, int64_t value, int64_t block) {
  return std::string(1, dimension) + " = " + std::to_string(value) + " is not a multiple of " + std::to_string(block);
}

}  // namespace

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind == LayerKind::embedding)
    return {std::nullopt, "it is an embedding, whose rows are looked up one by one; no loader does that with blocks"};
  Layout layout =
      matrix_layout(format_int8_blockwise, facts.shape, complete_options(format_int8_blockwise, options), DType::i8);
  const int64_t block = layout.options.integer(kBlockSize);
  const bool groups = layout.options.text(kGeometry) == "row_group";
  layout.block_rows = groups ? 1 : block;
  layout.block_cols = block;
  layout.row_granule = layout.block_rows;
  if (layout.cols % block != 0) return {std::nullopt, not_a_multiple('K', layout.cols, block)};
  if (layout.rows % layout.block_rows != 0) return {std::nullopt, not_a_multiple('N', layout.rows, block)};
  Shape scale = facts.shape;
  scale[scale.size() - 2] = layout.rows / layout.block_rows;
  scale.back() = layout.cols / block;
  if (groups) scale.push_back(1);
  layout.tensors.push_back({"weight_scale", DType::f32, std::move(scale)});
  return {std::move(layout), ""};
}

}  // namespace int8_blockwise

const Format format_int8_blockwise{
    .name = "int8_blockwise",
    .summary = "8-bit integers, one scale per block of rows and columns",
    .options = int8_blockwise::kOptions,
    .support = {.comfyui = false,
                .loaders = "convert_to_quant's nodes and forks of ComfyUI with block-wise int8",
                .fast_on = "NVIDIA SM 8.0 and newer, with a block-wise kernel",
                .nearest = "int8_tensorwise"},
    .describe = int8_blockwise::describe,
    .choose_plan = int8_blockwise::choose_plan,
    .observe = int8_blockwise::observe,
    .encode = int8_blockwise::encode,
    .decode = int8_blockwise::decode,
    .decode_bf16 = int8_blockwise::decode,
    .error_bound = int8_blockwise::error_bound,
    .scale_by_power_of_two = int8_blockwise::scale_by_power_of_two,
    .scale_update = ScaleUpdate::enough,
    .matmul_form = int8_blockwise::matmul_form,
    .marker = int8_blockwise::marker,
    .recognise = int8_blockwise::recognise,
    .verify = int8_blockwise::verify,
};

}  // namespace mezzotint::formats
