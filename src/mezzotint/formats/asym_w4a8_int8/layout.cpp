#include "mezzotint/formats/asym_w4a8_int8/layout.h"

#include <cstring>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/formats/common/convrot.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats {

extern const Format format_asym_w4a8_int8;

namespace asym_w4a8_int8 {
namespace {

constexpr float kUniform[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

std::string multiple(int64_t cols, int64_t of) {
  return cols % of == 0 ? "" : "K = " + std::to_string(cols) + " is not a multiple of " + std::to_string(of);
}

/// Why K columns cannot be cut up like this, or "".
std::string refuse_columns(int64_t cols, Codes codes, int64_t group, int64_t rotated) {
  if (!kernel::is_convrot_group(rotated))
    return "convrot_groupsize = " + std::to_string(rotated) + " is not a power of 4 from 4 to 4096";
  if (16 % group != 0 && group % 16 != 0)
    return "group_size = " + std::to_string(group) + " neither divides 16 nor is a multiple of it";
  if (codes == Codes::six_bit && group % 16 != 0)
    return "6-bit codes need a group_size that is a multiple of 16, not " + std::to_string(group);
  if (std::string text = multiple(cols, codes == Codes::six_bit ? 32 : 16); !text.empty()) return text;
  if (std::string text = multiple(cols, group); !text.empty()) return text + " (group_size)";
  return convrot::refuse(cols, rotated);
}

}  // namespace

Codes codes_of(const Options& options) {
  const std::string_view text = options.text(kCodes);
  for (const Codes codes : {Codes::uniform, Codes::asymmetric, Codes::six_bit})
    if (text == name(codes)) return codes;
  return Codes::codebook;
}

std::string_view name(Codes codes) {
  constexpr std::string_view kNames[] = {"codebook", "uniform", "asymmetric", "six_bit"};
  return kNames[static_cast<size_t>(codes)];
}

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind == LayerKind::embedding)
    return {std::nullopt, "it is an embedding, and loaders look those up only in 8-bit formats"};
  if (facts.kind == LayerKind::expert_bank)
    return {std::nullopt, "it is a bank of experts, and loaders drop weight_s_channel of those"};
  Layout layout =
      matrix_layout(format_asym_w4a8_int8, facts.shape, complete_options(format_asym_w4a8_int8, options), DType::i8);
  const Codes codes = codes_of(layout.options);
  const int64_t group = layout.options.integer(kGroupSize);
  if (std::string refusal = refuse_columns(layout.cols, codes, group, convrot::group(layout.options)); !refusal.empty())
    return {std::nullopt, std::move(refusal)};
  layout.row_bytes = codes == Codes::six_bit ? layout.cols * 3 / 4 : layout.cols / 2;
  layout.tensors[0].shape.back() = layout.row_bytes;
  layout.block_rows = 1;
  layout.block_cols = group;
  layout.transformed = true;
  const int64_t groups = layout.cols / group;
  layout.tensors.push_back({"weight_s_rel", DType::f8_e4m3, {layout.rows, groups}});
  layout.tensors.push_back({"weight_s_channel", DType::f32, {layout.rows}});
  if (codes == Codes::codebook) layout.tensors.push_back({"weight_codebook", DType::f32, {16}});
  if (codes == Codes::asymmetric) {
    layout.tensors.push_back({"weight_correction", DType::f32, {groups, layout.rows}});
    layout.note = "ComfyUI does not read weight_correction and computes with wrong weights";
  }
  return {std::move(layout), ""};
}

kernel::LevelCodes level_codes(const Layout& layout, const Parameters& parameters) {
  const Codes codes = codes_of(layout.options);
  kernel::LevelCodes how;
  how.bits = codes == Codes::six_bit ? 6 : 4;
  how.cols = layout.cols;
  how.group = layout.block_cols;
  if (how.bits == 4) how.base = codes == Codes::codebook ? floats(parameters, kExtra) : kUniform;
  return how;
}

kernel::LevelScales level_scales(const Layout& layout, const Parameters& parameters) {
  return {.relative = parameters.tensors[kRelative].data(),
          .relative_dtype = layout.tensors[kRelative].dtype,
          .channel = floats(parameters, kChannel),
          .correction = codes_of(layout.options) == Codes::asymmetric ? floats(parameters, kExtra) : nullptr,
          .rows = layout.rows};
}

float relative_at(const Layout& layout, const Parameters& parameters, int64_t row, int64_t group) {
  const auto index = static_cast<size_t>(row * (layout.cols / layout.block_cols) + group);
  if (layout.tensors[kRelative].dtype == DType::f32) return floats(parameters, kRelative)[index];
  return E4m3::decode(static_cast<uint32_t>(parameters.tensors[kRelative][index]));
}

}  // namespace asym_w4a8_int8
}  // namespace mezzotint::formats
