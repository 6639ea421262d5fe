#include "mezzotint/formats/common/mx_fp8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/fp8_codes.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/common/padded.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/common/swizzled_rows.h"
#include "mezzotint/kernel/mx.h"

namespace mezzotint::formats::mx_fp8 {
namespace {

constexpr int64_t kBlock = kernel::kMxBlock;
// Labels that may be mixed up; other formats are told apart by the dtype of their scales.
constexpr std::string_view kFamily[] = {
    "mxfp8",         // names a format: a label found in files
    "hybrid_mxfp8",  // names a format: a label found in files
};
constexpr size_t kScale = 1, kScalar = 2;  // of Layout::tensors

bool has_scalar(const Layout& layout) {
  return layout.tensors.size() > kScalar;
}
int64_t blocks_across(const Layout& layout) {
  return round_up_to(layout.cols, kAlignment) / kBlock;
}
int64_t buffer_bytes(const Layout& layout) {
  return swizzle::bytes(layout.stored_rows, blocks_across(layout));
}
/// An expert's blocked buffer of scales.
std::byte* buffer_of(const Layout& layout, Parameters& parameters, int64_t expert) {
  return parameters.tensors[kScale].data() + expert * buffer_bytes(layout);
}
const std::byte* buffer_of(const Layout& layout, const Parameters& parameters, int64_t expert) {
  return parameters.tensors[kScale].data() + expert * buffer_bytes(layout);
}

/// Scale bytes of a rectangle, row by row, from the block of four that holds its first column.
struct BlockScales {
  int64_t first, stride;  // in blocks
  std::vector<uint8_t> bytes;

  BlockScales(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0,
              int64_t cols)
      : first(col0 / (4 * kBlock) * 4), stride(round_up_to((col0 + cols + kBlock - 1) / kBlock, 4) - first) {
    bytes.resize(static_cast<size_t>(rows * stride));
    // Tiles never span two experts.
    swizzle::read_rows(buffer_of(layout, parameters, row0 / layout.rows), row0 % layout.rows, rows,
                       blocks_across(layout), first, stride, bytes.data(), stride);
  }
  int64_t column(int64_t col0) const { return col0 - first * kBlock; }
};

float value_of(uint32_t b) {
  return std::ldexp(b == 0 ? 0.0f : 1.0f, static_cast<int>(b) - 127);
}

/// Largest of whole tiles of scales, sixteen side by side: the compiler does not see by itself that it may.
uint8_t largest(const uint8_t* bytes, int64_t count) {
  typedef uint8_t Sixteen __attribute__((vector_size(16)));
  static_assert(swizzle::kTileBytes % sizeof(Sixteen) == 0);
  Sixteen tops{};
  for (const uint8_t* end = bytes + count; bytes != end; bytes += sizeof(Sixteen)) {
    Sixteen next;
    std::memcpy(&next, bytes, sizeof next);
    tops = next > tops ? next : tops;
  }
  uint8_t top = 0;
  for (size_t i = 0; i < sizeof(Sixteen); ++i) top = std::max(top, static_cast<uint8_t>(tops[i]));
  return top;
}

bool one_byte(DType dtype) {
  return dtype == DType::u8 || dtype == DType::i8 || dtype == DType::f8_e8m0;
}

}  // namespace

Description describe(const Format& format, Scalar scalar, const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind == LayerKind::embedding)
    return {std::nullopt, "it is an embedding, whose rows are looked up one by one; no loader does that with blocks"};
  Layout layout = matrix_layout(format, facts.shape, complete_options(format, options), DType::f8_e4m3);
  if (facts.bias && layout.rows % kAlignment != 0)
    return {std::nullopt, "N = " + std::to_string(layout.rows) +
                              " is not a multiple of 32 and the layer has a bias, which ComfyUI cannot add to the "
                              "padded product"};
  layout.stored_rows = round_up_to(layout.rows, kAlignment);
  layout.row_bytes = round_up_to(layout.cols, kAlignment);
  layout.block_rows = 1;
  layout.block_cols = kBlock;
  Shape& codes = layout.tensors[0].shape;
  codes[codes.size() - 2] = layout.stored_rows;
  codes.back() = layout.row_bytes;
  layout.tensors.push_back(
      {"weight_scale", DType::u8, swizzle::shape(facts.shape, layout.stored_rows, blocks_across(layout))});
  if (scalar == Scalar::present) layout.tensors.push_back({"weight_scalar", DType::f32, per_matrix_shape(facts.shape)});
  return {std::move(layout), ""};
}

ChoosePlan choose_plan(const Layout& layout, const ChooseOptions&) {
  return {.passes = 1, .stats = 0, .fused = !has_scalar(layout)};
}

bool observe(const Layout& layout, const ChooseOptions&, int, const Tile& tile, float*, Parameters& parameters) {
  const int64_t across = blocks_across(layout);
  std::vector<uint8_t> scales(static_cast<size_t>(tile.rows * across));
  const bool non_finite = kernel::mx_scales(source(tile), scales.data(), across);
  swizzle::write_rows(buffer_of(layout, parameters, tile.row0 / layout.rows), tile.row0 % layout.rows, tile.rows,
                      across, scales.data(), across);
  return non_finite;
}

// Unused bytes and blocks of zeros are 0 and take no part; where there are only such, convert_to_quant writes 1.
void finish(const Layout& layout, const ChooseOptions&, int, float*, Parameters& parameters) {
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const uint8_t top =
        largest(reinterpret_cast<const uint8_t*>(buffer_of(layout, parameters, expert)), buffer_bytes(layout));
    floats(parameters, kScalar)[expert] = top == 0 ? 1.0f : value_of(top);
  }
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  const BlockScales scales(layout, parameters, tile.row0, tile.rows, tile.col0, tile.cols);
  kernel::encode_mx(source(tile), scales.bytes.data(), scales.stride, scales.column(tile.col0),
                    reinterpret_cast<uint8_t*>(codes) + tile.col0, layout.row_bytes, rounding,
                    element_index(layout, tile));
}

template <class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride) {
  const BlockScales scales(layout, parameters, row0, rows, col0, cols);
  kernel::decode_mx(reinterpret_cast<const uint8_t*>(codes) + col0, scales.bytes.data(), scales.stride, rows, cols,
                    scales.column(col0), layout.row_bytes, out, out_stride);
}

// The bound of 8-bit codes; a scale of zero decodes to zero.
void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const BlockScales scales(layout, parameters, tile.row0, tile.rows, tile.col0, tile.cols);
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t c = 0; c < tile.cols; ++c) {
      const uint8_t b = scales.bytes[static_cast<size_t>(r * scales.stride + (tile.col0 + c) / kBlock - scales.first)];
      bound[r * tile.cols + c] = fp8_codes::element_bound<DType::f8_e4m3>(values[r * tile.row_stride + c], value_of(b));
    }
}

bool scale_by_power_of_two(const Layout& layout, Parameters& parameters, int exponent) {
  // Within these no value of a code is rounded, and the largest stays finite.
  constexpr int kLeast = 1, kMost = 246;
  Bytes& scales = parameters.tensors[kScale];
  for (const std::byte scale : scales) {
    const int b = static_cast<int>(scale);
    if (b != 0 && (b > kMost || b + exponent < kLeast || b + exponent > kMost)) return false;
  }
  if (has_scalar(layout) && !scale_floats(parameters, kScalar, exponent)) return false;
  for (std::byte& scale : scales)
    if (scale != std::byte{0}) scale = static_cast<std::byte>(static_cast<int>(scale) + exponent);
  return true;
}

MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  MatmulForm form;
  form.codes = matmul_forms::codes(layout, parameters, expert, kernel::ElementCode::e4m3);
  form.codes.scales = {kernel::ScaleCode::e8m0, buffer_of(layout, parameters, expert),       1,
                       kernel::kMxBlock,        swizzle::padded_cols(blocks_across(layout)), true};
  form.input = InputCodes::mx;
  return form;
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  object["group_size"] = kBlock;
  // No loader reads it, but it is the only thing in a file that tells how much of the codes is padding.
  object["orig_shape"] = layout.shape;
}

Recognition recognise(const Format& format, Scalar scalar, const StoredLayer& layer) {
  const std::string own(format.name);
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const TensorFacts* tensor_scale = layer.find("weight_scalar");
  const bool own_label = layer.label == format.name;
  const bool family = std::find(std::begin(kFamily), std::end(kFamily), layer.label) != std::end(kFamily);
  if (!own_label && !family && !layer.label.empty()) return {};
  if (!own_label && (tensor_scale != nullptr) != (scalar == Scalar::present)) return {};
  const auto broken = [&](std::string problem) -> Recognition {
    if (!own_label) return {};
    return {Fit::broken, {}, {std::move(problem)}};
  };

  const size_t rank = weight.shape.size();
  const LayerKind kind = rank == 3 ? LayerKind::expert_bank : LayerKind::linear;
  if (weight.dtype != DType::f8_e4m3)
    return broken(tell(weight) + ", but " + own + " stores F8_E4M3: loaders would convert the numbers.");
  if (const std::string refusal = refuse_shape({weight.shape, kind}); !refusal.empty())
    return broken(tell(weight) + ", which cannot hold " + own + ": " + refusal + ".");
  if (weight.shape.back() > kLargestDimension || weight.shape[rank - 2] > kLargestDimension)
    return broken(tell(weight) + ".");
  if (weight.shape.back() % kAlignment != 0 || weight.shape[rank - 2] % kAlignment != 0)
    return broken(tell(weight) + ", but rows and columns of " + own + " are padded to multiples of 32.");

  Recognition recognition{Fit::none, {}, {}};
  const Shape logical = logical_shape(layer, weight.shape, kAlignment, recognition.problems);
  recognition.layout = *describe(format, scalar, {logical, kind}, {}).layout;
  const StoredTensor& wanted = recognition.layout.tensors[kScale];
  Shape row_by_row = weight.shape;
  row_by_row.back() /= kBlock;
  bool readable = true;
  const auto unreadable = [&](std::string problem) {
    recognition.problems.push_back(std::move(problem));
    readable = false;
  };
  if (scale == nullptr) {
    unreadable("weight_scale is missing; the codes mean nothing without it.");
  } else if (one_byte(scale->dtype) && scale->shape == row_by_row && scale->shape != wanted.shape) {
    unreadable(tell(*scale) + ": scales row by row, but " + own + " stores them in tiles of 128 x 4, " +
               to_string(wanted.shape) + ".");
  } else if (!one_byte(scale->dtype) || element_count(scale->shape) != element_count(wanted.shape)) {
    // Loaders take any shape of the right size: the rows and columns of the buffer mean nothing.
    unreadable(tell(*scale) + ", not U8 " + to_string(wanted.shape) + ".");
  } else if (scale->dtype == DType::f8_e8m0 && !layer.label.empty()) {
    recognition.problems.push_back(tell(*scale) + "; ComfyUI's own file reader does not know that dtype, U8 is safe.");
  }
  if (scalar == Scalar::present) {
    const StoredTensor& canonical = recognition.layout.tensors[kScalar];
    if (tensor_scale == nullptr)
      unreadable("weight_scalar is missing.");
    else if (!is_scale_dtype(tensor_scale->dtype) ||
             (element_count(tensor_scale->shape) != 1 && tensor_scale->shape != canonical.shape))
      unreadable(tell(*tensor_scale) + ", not F32 " + to_string(canonical.shape) + ".");
  }
  if (!own_label && !readable) return {};
  recognition.fit = !readable             ? Fit::broken
                    : own_label           ? Fit::labelled
                    : layer.label.empty() ? Fit::unlabelled
                                          : Fit::mislabelled;
  if (recognition.fit == Fit::mislabelled)
    recognition.problems.push_back("The marker says " + std::string(layer.label) + ", but the tensors are those of " +
                                   own + ".");
  return recognition;
}

void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  const int64_t across = blocks_across(layout), rows = layout.stored_rows;
  int64_t infinite = 0, stray = 0;
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const std::byte* buffer = buffer_of(layout, parameters, expert);
    for (int64_t r = 0; r < swizzle::padded_rows(rows); ++r)
      for (int64_t b = 0; b < swizzle::padded_cols(across); ++b) {
        const std::byte scale = buffer[swizzle::offset(r, b, across)];
        const bool used = r < rows && b < across;
        infinite += used && scale == std::byte{0xFF};
        stray += !used && scale != std::byte{0};
      }
  }
  if (infinite != 0)
    problems.push_back("weight_scale holds " + std::to_string(infinite) + " bytes of 255, which are no numbers.");
  if (stray != 0)
    problems.push_back("weight_scale holds " + std::to_string(stray) +
                       " values where its padding must be zero: it may lie row by row instead of in tiles of 128 x 4.");
  if (has_scalar(layout)) verify_positive(parameters, kScalar, "weight_scalar", problems);
}

template void decode(const Layout&, const Parameters&, int64_t, int64_t, int64_t, int64_t, const std::byte*, float*,
                     int64_t);
template void decode(const Layout&, const Parameters&, int64_t, int64_t, int64_t, int64_t, const std::byte*, uint16_t*,
                     int64_t);

}  // namespace mezzotint::formats::mx_fp8
