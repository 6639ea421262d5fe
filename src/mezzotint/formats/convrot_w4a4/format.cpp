#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/convrot.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/convrot_w4a4/recognise.h"
#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {

extern const Format format_convrot_w4a4;

namespace convrot_w4a4 {
namespace {

constexpr float kSmallestAmax = 1e-10f;
constexpr float kFloor = kSmallestAmax / 7.0f;
/// What kitchen calls quant_group_size: its int4 kernels step through K by that.
constexpr int64_t kStep = 64;
/// At effort 1 the search looks at every fourth run of 16 columns: rotated rows look alike everywhere.
constexpr int64_t kSampleStep = 4;

constexpr Alias kAliases[] = {{"w4a4", ""}};
constexpr OptionSpec kOptions[] = {convrot::kGroupOption,
                                   {kLinearDtype, OptionSpec::Type::choice, "int4", "int4|int8",
                                    "what activations are rounded to when it runs (the stored weight is the same)"}};

kernel::Scales scales(const Parameters& parameters, int64_t row0) {
  return kernel::Scales::per_row(floats(parameters, 1), row0);
}

uint8_t* bytes(std::byte* codes) {
  return reinterpret_cast<uint8_t*>(codes);
}

ChoosePlan choose_plan(const Layout&, const ChooseOptions&) {
  return {.passes = 1, .stats = 0, .fused = true};
}

bool observe(const Layout& layout, const ChooseOptions& choose, int, const Tile& tile, float*, Parameters& parameters) {
  float* scale = floats(parameters, 1) + tile.row0;
  const bool non_finite = kernel::amax_rows(source(tile), scale);
  for (int64_t r = 0; r < tile.rows; ++r) scale[r] = std::max(scale[r], kSmallestAmax) / 7.0f;
  if (choose.effort > 0) {
    const std::vector<float> weights = convrot::column_weights(layout, choose);
    kernel::search_int4_rows(source(tile), weights.empty() ? nullptr : weights.data(),
                             choose.effort > 1 ? 1 : kSampleStep, kFloor, scale);
  }
  return non_finite;
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  kernel::encode_int4(source(tile), scales(parameters, tile.row0), bytes(codes), layout.row_bytes, tile.col0, rounding,
                      element_index(layout, tile));
}

void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  kernel::decode_int4(reinterpret_cast<const uint8_t*>(codes), rows, cols, layout.row_bytes, col0,
                      scales(parameters, row0), out, out_stride);
}

void error_bound(const Layout&, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const double s = floats(parameters, 1)[tile.row0 + r];
    for (int64_t c = 0; c < tile.cols; ++c) {
      const double x = std::abs(static_cast<double>(values[r * tile.row_stride + c]));
      // Half a step, what the division and the product round, what lies beyond 7 steps.
      bound[r * tile.cols + c] = std::isfinite(x)
                                     ? round_up(0.5 * s + x * 0x1p-22 + std::max(0.0, x - 7 * s) + 0x1p-149)
                                     : std::numeric_limits<float>::infinity();
    }
  }
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 1, exponent);
}

/// Codes one by one, for the integer product of linear_dtype int8.
void grid(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, float* out) {
  constexpr float kOne = 1.0f;
  const std::byte* codes = parameters.tensors[0].data() + row0 * layout.row_bytes;
  kernel::decode_int4(reinterpret_cast<const uint8_t*>(codes), rows, layout.cols, layout.row_bytes, 0,
                      kernel::Scales::scalar(&kOne), out, layout.cols);
}

MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  MatmulForm form = matmul_forms::scaled(layout, parameters, expert, kernel::ElementCode::int4, InputCodes::int4);
  form.rotation = convrot::group(layout.options);
  if (layout.options.text(kLinearDtype) == "int4") return form;
  form.grid_codes = {.codes = form.codes.data, .twos_complement = true};
  form.codes = {};
  form.grid = grid;
  form.input = InputCodes::int8;
  return form;
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  object[convrot::kGroup] = convrot::group(layout.options);
  if (layout.options.text(kLinearDtype) != "int4") object[kLinearDtype] = layout.options.text(kLinearDtype);
}

void verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
}

}  // namespace

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind == LayerKind::embedding)
    return {std::nullopt, "it is an embedding, and loaders look those up only in 8-bit formats"};
  const int64_t cols = facts.shape.back();
  if (cols % kStep != 0)
    return {std::nullopt, "K = " + std::to_string(cols) + " is not a multiple of " + std::to_string(kStep)};
  Layout layout =
      matrix_layout(format_convrot_w4a4, facts.shape, complete_options(format_convrot_w4a4, options), DType::i8);
  if (std::string refusal = convrot::refuse(cols, convrot::group(layout.options)); !refusal.empty())
    return {std::nullopt, std::move(refusal)};
  layout.row_bytes = cols / 2;
  layout.tensors[0].shape.back() = layout.row_bytes;
  layout.block_rows = 1;
  layout.transformed = true;
  Shape per_row = facts.shape;
  per_row.pop_back();
  layout.tensors.push_back({"weight_scale", DType::f32, per_row});
  return {std::move(layout), ""};
}

}  // namespace convrot_w4a4

const Format format_convrot_w4a4{
    .name = "convrot_w4a4",
    .summary = "4-bit integers of rotated rows, one scale per row; activations in 4 bits too",
    .aliases = convrot_w4a4::kAliases,
    .options = convrot_w4a4::kOptions,
    .support = {.comfyui = true,
                .loaders = "ComfyUI (layers and banks of experts)",
                .fast_on = "NVIDIA SM 7.5 and newer with int4 tensor cores (others: activations in 8 bits)"},
    .describe = convrot_w4a4::describe,
    .choose_plan = convrot_w4a4::choose_plan,
    .observe = convrot_w4a4::observe,
    .encode = convrot_w4a4::encode,
    .decode = convrot_w4a4::decode,
    .error_bound = convrot_w4a4::error_bound,
    .transform = convrot::transform,
    .scale_by_power_of_two = convrot_w4a4::scale_by_power_of_two,
    .matmul_form = convrot_w4a4::matmul_form,
    .marker = convrot_w4a4::marker,
    .recognise = convrot_w4a4::recognise,
    .verify = convrot_w4a4::verify,
};

}  // namespace mezzotint::formats
