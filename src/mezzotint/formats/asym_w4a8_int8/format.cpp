#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mezzotint/formats/asym_w4a8_int8/layout.h"
#include "mezzotint/formats/common/convrot.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {

extern const Format format_asym_w4a8_int8;

namespace asym_w4a8_int8 {
namespace {

constexpr float kSmallest = 1e-8f;

constexpr Alias kAliases[] = {{"w4a8", ""}, {"w6a8", "codes=six_bit"}};
constexpr OptionSpec kOptions[] = {
    {kCodes, OptionSpec::Type::choice, "codebook", "codebook|uniform|asymmetric|six_bit",
     "what codes stand for: 16 values of a table, evenly spaced steps, the same from each group's own minimum "
     "(ComfyUI ignores that minimum), or 63 steps in 6 bits"},
    {kGroupSize, OptionSpec::Type::integer, "16", "4..512", "columns that share a scale: divides 16, or a multiple"},
    {convrot::kGroup, OptionSpec::Type::integer, "256", "4..4096", convrot::kGroupOption.help}};

void constants(const Layout& layout, Parameters& parameters) {
  if (codes_of(layout.options) == Codes::codebook)
    std::memcpy(parameters.tensors[kExtra].data(), kFixedCodebook, sizeof kFixedCodebook);
}

ChoosePlan choose_plan(const Layout&, const ChooseOptions&) {
  return {.passes = 1, .stats = 0, .fused = true};
}

bool observe(const Layout& layout, const ChooseOptions& choose, int, const Tile& tile, float*, Parameters& parameters) {
  const Codes codes = codes_of(layout.options);
  const kernel::LevelCodes how = level_codes(layout, parameters);
  const kernel::GroupFit fit = codes == Codes::uniform      ? kernel::GroupFit::absmax
                               : codes == Codes::asymmetric ? kernel::GroupFit::range
                                                            : kernel::GroupFit::alternating;
  const int64_t groups = how.groups();
  std::vector<float> scales(static_cast<size_t>(tile.rows * groups)), tops(static_cast<size_t>(tile.rows));
  float* correction = codes == Codes::asymmetric ? floats(parameters, kExtra) + tile.row0 : nullptr;
  kernel::fit_groups(source(tile), how, fit, scales.data(), tops.data(), correction, layout.rows);

  float* channel = floats(parameters, kChannel) + tile.row0;
  for (int64_t r = 0; r < tile.rows; ++r) channel[r] = std::max(tops[static_cast<size_t>(r)] / 127.0f, kSmallest);
  assert(layout.tensors[kRelative].dtype == DType::f8_e4m3);
  auto* relative = reinterpret_cast<uint8_t*>(parameters.tensors[kRelative].data()) + tile.row0 * groups;
  kernel::relative_scales(scales.data(), tile.rows, groups, channel, relative);
  // Kitchen looks at the neighbours of 6-bit scales and no others.
  const int reach = choose.effort > 1 ? 2 : codes == Codes::six_bit ? 1 : 0;
  if (reach > 0)
    kernel::search_relative(source(tile), how, level_scales(layout, parameters), tile.row0, reach, relative);
  return kernel::amax(source(tile)).non_finite;
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  kernel::encode_levels(source(tile), level_codes(layout, parameters), level_scales(layout, parameters), tile.row0,
                        tile.col0, reinterpret_cast<uint8_t*>(codes), layout.row_bytes, rounding,
                        element_index(layout, tile));
}

void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  kernel::decode_levels(reinterpret_cast<const uint8_t*>(codes), layout.row_bytes, level_codes(layout, parameters),
                        level_scales(layout, parameters), row0, rows, col0, cols, out, out_stride);
}

bool scale_by_power_of_two(const Layout& layout, Parameters& parameters, int exponent) {
  if (codes_of(layout.options) != Codes::asymmetric) return scale_floats(parameters, kChannel, exponent);
  std::vector<float> moved(float_count(parameters, kExtra));
  for (size_t i = 0; i < moved.size(); ++i) {
    const float value = floats(parameters, kExtra)[i];
    moved[i] = std::ldexp(value, exponent);
    if (!std::isfinite(moved[i]) || std::ldexp(moved[i], -exponent) != value) return false;
  }
  if (!scale_floats(parameters, kChannel, exponent)) return false;
  std::copy(moved.begin(), moved.end(), floats(parameters, kExtra));
  return true;
}

/// The int8 grid of the rows: levels without their channel's scale.
void grid(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, float* out) {
  const kernel::LevelCodes how = level_codes(layout, parameters);
  const std::vector<float> ones(static_cast<size_t>(rows), 1.0f);
  kernel::LevelScales scales = level_scales(layout, parameters);
  scales.relative =
      static_cast<const std::byte*>(scales.relative) + row0 * how.groups() * (facts(scales.relative_dtype).bits / 8);
  scales.channel = ones.data();
  scales.rows = rows;
  const std::byte* codes = parameters.tensors[0].data() + row0 * layout.row_bytes;
  kernel::decode_levels(reinterpret_cast<const uint8_t*>(codes), layout.row_bytes, how, scales, 0, rows, 0, layout.cols,
                        out, layout.cols);
}

MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  if (codes_of(layout.options) == Codes::asymmetric) return {};  // a correction is no multiple of the channel's scale
  MatmulForm form;
  form.row_scale = floats(parameters, kChannel) + expert * layout.rows;
  form.rotation = convrot::group(layout.options);
  form.input = InputCodes::int8;
  form.grid = grid;
  if (codes_of(layout.options) == Codes::six_bit) return form;
  const DType dtype = layout.tensors[kRelative].dtype;
  const int64_t groups = layout.cols / layout.block_cols;
  form.grid_codes = {
      .codes = matmul_forms::codes(layout, parameters, expert, kernel::ElementCode::int4).data,
      .relative = parameters.tensors[kRelative].data() + expert * layout.rows * groups * (facts(dtype).bits / 8),
      .relative_dtype = dtype,
      .group = layout.block_cols,
      .codebook = codes_of(layout.options) == Codes::codebook ? floats(parameters, kExtra) : nullptr};
  return form;
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  object[kGroupSize] = layout.block_cols;
  object[convrot::kGroup] = convrot::group(layout.options);
  object[kCodes] = layout.options.text(kCodes);  // ComfyUI takes a missing table for uniform codes; we would know
}

void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, kChannel, "weight_s_channel", problems);
  int64_t negative = 0;
  for (int64_t row = 0; row < layout.rows; ++row)
    for (int64_t g = 0; g < layout.cols / layout.block_cols; ++g)
      negative += relative_at(layout, parameters, row, g) < 0 ? 1 : 0;
  if (negative > 0) problems.push_back("weight_s_rel holds " + std::to_string(negative) + " negative values.");
  if (codes_of(layout.options) != Codes::codebook) return;
  const float* table = floats(parameters, kExtra);
  if (!std::is_sorted(table, table + 16)) problems.push_back("weight_codebook is not in ascending order.");
}

}  // namespace
}  // namespace asym_w4a8_int8

const Format format_asym_w4a8_int8{
    .name = asym_w4a8_int8::kName,
    .summary = "4-bit (or 6-bit) codes of rotated rows in groups of 16; activations in 8 bits",
    .aliases = asym_w4a8_int8::kAliases,
    .options = asym_w4a8_int8::kOptions,
    .support = {.comfyui = true,
                .loaders = "ComfyUI (layers; codes=six_bit with comfy-kitchen 0.2.40 or newer)",
                .fast_on = "NVIDIA SM 8.0 and newer"},
    .describe = asym_w4a8_int8::describe,
    .constants = asym_w4a8_int8::constants,
    .choose_plan = asym_w4a8_int8::choose_plan,
    .observe = asym_w4a8_int8::observe,
    .encode = asym_w4a8_int8::encode,
    .decode = asym_w4a8_int8::decode,
    .error_bound = asym_w4a8_int8::error_bound,
    .transform = convrot::transform,
    .scale_by_power_of_two = asym_w4a8_int8::scale_by_power_of_two,
    .matmul_form = asym_w4a8_int8::matmul_form,
    .marker = asym_w4a8_int8::marker,
    .recognise = asym_w4a8_int8::recognise,
    .verify = asym_w4a8_int8::verify,
};

}  // namespace mezzotint::formats
