#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/common/swizzled_rows.h"
#include "mezzotint/formats/nvfp4/recognise.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {

extern const Format format_nvfp4;

namespace nvfp4 {
namespace {

constexpr int64_t kBlock = kernel::kFp4Block;
constexpr size_t kBlockScale = 1, kGlobalScale = 2;  // of Layout::tensors
constexpr float kLargestCode = 6.0f, kLargestScale = 448.0f;
// Where the search may raise a block's scale, the largest block starts at this one.
constexpr float kScaleWithRoom = 256.0f;

int64_t blocks_across(const Layout& layout) {
  return round_up_to(layout.cols, kAlignment) / kBlock;
}

/// Where the blocked buffer of a row's expert begins.
int64_t buffer_start(const Layout& layout, int64_t row) {
  return row / layout.rows * swizzle::bytes(layout.stored_rows, blocks_across(layout));
}

/// The factors t = weight_scale_2 * block scale of a rectangle of the weight.
class BlockFactors {
 public:
  BlockFactors(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0,
               int64_t cols)
      : window_(col0, cols, kBlock) {
    const int64_t stride = window_.count;
    const auto count = static_cast<size_t>(rows * stride);
    const std::unique_ptr<uint8_t[]> codes(new uint8_t[count]);
    factors_.reset(new float[count]);
    // Tiles never span two experts.
    window_.read(parameters.tensors[kBlockScale].data() + buffer_start(layout, row0), row0 % layout.rows, rows,
                 blocks_across(layout), codes.get());
    kernel::decode_fp8(codes.get(), DType::f8_e4m3, rows, stride, stride,
                       kernel::Scales::scalar(floats(parameters, kGlobalScale) + row0 / layout.rows), factors_.get(),
                       stride);
  }
  /// For kernels that begin at column col0; the codes they write begin at column_of_codes().
  kernel::Scales scales(int64_t col0) const {
    return kernel::Scales::blocks(factors_.get(), window_.count, 1, kBlock, 0, col0 - column_of_codes());
  }
  int64_t column_of_codes() const { return window_.first * kBlock; }
  float at(int64_t row, int64_t col) const {
    return factors_[static_cast<size_t>(row * window_.count + col / kBlock - window_.first)];
  }

 private:
  swizzle::Window window_;
  std::unique_ptr<float[]> factors_;
};

ChoosePlan choose_plan(const Layout& layout, const ChooseOptions&) {
  return {.passes = 2, .stats = static_cast<size_t>(layout.total_rows()), .fused = true};
}

bool observe(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
             Parameters& parameters) {
  if (pass == 0) {
    // One number per tile, at its first row; the other rows keep the zero they were given.
    const kernel::Amax amax = kernel::amax(source(tile));
    stats[tile.row0] = amax.value;
    return amax.non_finite;
  }
  const float global = floats(parameters, kGlobalScale)[tile.row0 / layout.rows];
  const int64_t across = blocks_across(layout);
  std::vector<uint8_t> scales(static_cast<size_t>(tile.rows * across));
  bool non_finite = false;
  if (choose.effort <= 0) {
    non_finite = kernel::fp4_scales(source(tile), global, scales.data(), across);
  } else {
    const auto search = choose.effort == 1 ? kernel::Fp4Search::two : kernel::Fp4Search::thirteen;
    const float* weight = choose.column_weight.empty() ? nullptr : choose.column_weight.data();
    non_finite = kernel::search_fp4_scales(source(tile), global, weight, search, scales.data(), across);
  }
  swizzle::write_rows(parameters.tensors[kBlockScale].data() + buffer_start(layout, tile.row0), tile.row0 % layout.rows,
                      tile.rows, across, scales.data(), across);
  return non_finite;
}

/// amax / (6 * top), where the largest block gets the scale `top`, kept positive and such that the largest code stays
/// finite.
float global_scale(float amax, float top) {
  if (amax == 0) return 1.0f;
  const auto holds = [](float global) { return std::isfinite(kLargestCode * (kLargestScale * global)); };
  float global = amax / (kLargestCode * top);
  if (!holds(global)) global = amax / (kLargestCode * kLargestScale);
  if (!holds(global)) global = std::nextafter(global, 0.0f);
  return std::max(global, std::numeric_limits<float>::denorm_min());
}

void finish(const Layout& layout, const ChooseOptions& choose, int, float* stats, Parameters& parameters) {
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const float* rows = stats + expert * layout.rows;
    const float amax = *std::max_element(rows, rows + layout.rows);
    floats(parameters, kGlobalScale)[expert] = global_scale(amax, choose.effort <= 0 ? kLargestScale : kScaleWithRoom);
  }
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  const BlockFactors factors(layout, parameters, tile.row0, tile.rows, tile.col0, tile.cols);
  kernel::encode_fp4(source(tile), factors.scales(tile.col0),
                     reinterpret_cast<uint8_t*>(codes) + factors.column_of_codes() / 2, layout.row_bytes, rounding,
                     element_index(layout, tile));
}

template <class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride) {
  const BlockFactors factors(layout, parameters, row0, rows, col0, cols);
  kernel::decode_fp4(reinterpret_cast<const uint8_t*>(codes) + factors.column_of_codes() / 2, rows, cols,
                     layout.row_bytes, factors.scales(col0), out, out_stride);
}

// With y = x / t: y carries a relative error of 2^-24, is clamped, and rounding moves it by half the distance of its
// neighbours: 1/4 below 2, 1/2 below 4, 1 above. The product with t rounds once more, in the subnormal range by at most
// 2^-150.
void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const BlockFactors factors(layout, parameters, tile.row0, tile.rows, tile.col0, tile.cols);
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t c = 0; c < tile.cols; ++c) {
      const double x = std::abs(static_cast<double>(values[r * tile.row_stride + c]));
      const double t = std::abs(static_cast<double>(factors.at(r, tile.col0 + c)));
      double step = x < 2 * t ? 0.5 * t : x < 4 * t ? t : 2 * t;
      if (t == 0) step = 0;
      const double saturated = std::max(0.0, x - static_cast<double>(kLargestCode) * t);
      bound[r * tile.cols + c] = std::isfinite(x)
                                     ? round_up(step / 2 * (1 + 0x1p-20) + x * 0x1p-21 + saturated + 0x1p-149)
                                     : std::numeric_limits<float>::infinity();
    }
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  // Within these no product of a code and two scales, 2^-10 to 2688 times as large, is subnormal or overflows.
  constexpr float kLeast = 0x1p-116f, kMost = 0x1p116f;
  float* scales = floats(parameters, kGlobalScale);
  const size_t count = float_count(parameters, kGlobalScale);
  const auto exact = [](float scale) { return scale >= kLeast && scale <= kMost; };
  for (size_t i = 0; i < count; ++i)
    if (!exact(scales[i]) || !exact(std::ldexp(scales[i], exponent))) return false;
  for (size_t i = 0; i < count; ++i) scales[i] = std::ldexp(scales[i], exponent);
  return true;
}

constexpr std::string_view kCompanions[] = {"input_scale", "pre_quant_scale"};

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  object["group_size"] = kBlock;
  // No loader reads it, but it is the only thing in a file that tells how much of the codes is padding.
  object["orig_shape"] = layout.shape;
}

MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  const int64_t across = blocks_across(layout);
  MatmulForm form;
  form.codes = matmul_forms::codes(layout, parameters, expert, kernel::ElementCode::e2m1);
  form.codes.scales = {kernel::ScaleCode::e4m3,
                       parameters.tensors[kBlockScale].data() + expert * swizzle::bytes(layout.stored_rows, across),
                       1,
                       kBlock,
                       swizzle::padded_cols(across),
                       true};
  form.scale = floats(parameters, kGlobalScale) + expert;
  form.input = InputCodes::fp4;
  return form;
}

void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, kGlobalScale, "weight_scale_2", problems);
  const auto& scales = parameters.tensors[kBlockScale];
  const int64_t across = blocks_across(layout), rows = layout.stored_rows;
  const int64_t size = swizzle::bytes(rows, across);
  int64_t negative = 0, stray = 0;
  for (int64_t expert = 0; expert < layout.experts; ++expert)
    for (int64_t r = 0; r < swizzle::padded_rows(rows); ++r)
      for (int64_t b = 0; b < swizzle::padded_cols(across); ++b) {
        const auto code =
            static_cast<uint32_t>(scales[static_cast<size_t>(expert * size + swizzle::offset(r, b, across))]);
        const bool used = r < rows && b < across;
        negative += used && code > 0x80 && code != 0xFF;
        stray += !used && code != 0;
      }
  if (negative != 0) problems.push_back("weight_scale holds " + std::to_string(negative) + " negative values.");
  if (stray != 0)
    problems.push_back("weight_scale holds " + std::to_string(stray) +
                       " values where its padding must be zero: it may lie row by row instead of in tiles of 128 x 4.");
}

}  // namespace

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind == LayerKind::embedding)
    return {std::nullopt, "it is an embedding, whose rows are looked up one by one; no loader does that with blocks"};
  Layout layout = matrix_layout(format_nvfp4, facts.shape, complete_options(format_nvfp4, options), DType::u8);
  layout.stored_rows = round_up_to(layout.rows, kAlignment);
  layout.row_bytes = round_up_to(layout.cols, kAlignment) / 2;
  layout.block_rows = 1;
  layout.block_cols = kBlock;
  Shape codes = facts.shape;
  codes[codes.size() - 2] = layout.stored_rows;
  codes.back() = layout.row_bytes;
  layout.tensors = {
      {"weight", DType::u8, std::move(codes)},
      {"weight_scale", DType::f8_e4m3, swizzle::shape(facts.shape, layout.stored_rows, blocks_across(layout))},
      {"weight_scale_2", DType::f32, per_matrix_shape(facts.shape)}};
  return {std::move(layout), ""};
}

}  // namespace nvfp4

const Format format_nvfp4{
    .name = "nvfp4",
    .summary = "4-bit floats, an 8-bit float scale per 16 columns of a row, and one scale over all",
    .support = {.comfyui = true,
                .loaders = "ComfyUI (linear layers and banks of experts)",
                .fast_on = "NVIDIA SM 10.0 and newer (Blackwell)"},
    .describe = nvfp4::describe,
    .choose_plan = nvfp4::choose_plan,
    .observe = nvfp4::observe,
    .finish = nvfp4::finish,
    .encode = nvfp4::encode,
    .decode = nvfp4::decode,
    .decode_bf16 = nvfp4::decode,
    .error_bound = nvfp4::error_bound,
    .scale_by_power_of_two = nvfp4::scale_by_power_of_two,
    .scale_update = ScaleUpdate::power_of_two,
    .matmul_form = nvfp4::matmul_form,
    .companions = nvfp4::kCompanions,
    .input_scale_divisor = 448 * 6,
    .marker = nvfp4::marker,
    .recognise = nvfp4::recognise,
    .verify = nvfp4::verify,
};

}  // namespace mezzotint::formats
