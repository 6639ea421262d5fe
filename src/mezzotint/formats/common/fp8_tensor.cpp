#include "mezzotint/formats/common/fp8_tensor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {
namespace {

template <DType D>
struct CodecOf;
template <>
struct CodecOf<DType::f8_e4m3> {
  using type = E4m3;
};
template <>
struct CodecOf<DType::f8_e5m2> {
  using type = E5m2;
};
template <DType D>
using Codec = typename CodecOf<D>::type;

/// Labels under which files with such a weight and a single scale are around: converters mix them up.
// names a format: labels found in files, right or wrong
constexpr std::string_view kFamily[] = {"float8_e4m3fn", "float8_e5m2", "float8_e4m3fn_rowwise",
                                        "float8_e4m3fn_blockwise", "float8_e4m3fn_block3d"};

float multiplier(float scale) {
  const float reciprocal = 1.0f / scale;
  // Only a scale that verify refuses gets here; what it decodes to is next to nothing in any case.
  return std::isfinite(reciprocal) ? reciprocal : 0.0f;
}

kernel::Scales scales(const Layout& layout, const Parameters& parameters, int64_t row0) {
  return {.data = floats(parameters, 1), .block_rows = layout.rows, .block_cols = 0, .stride = 1, .row0 = row0};
}

}  // namespace

template <DType D>
Description Fp8Tensor<D>::describe(const Format& format, const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  Layout layout = matrix_layout(format, facts.shape, options, D);
  layout.tensors.push_back({"weight_scale", DType::f32, per_matrix_shape(facts.shape)});
  return {std::move(layout), ""};
}

template <DType D>
ChoosePlan Fp8Tensor<D>::choose_plan(const Layout& layout, const ChooseOptions&) {
  return {.passes = 1, .stats = static_cast<size_t>(layout.total_rows()), .fused = false};
}

template <DType D>
bool Fp8Tensor<D>::observe(const Layout&, const ChooseOptions&, int, const Tile& tile, float* stats, Parameters&) {
  // One number per tile, at its first row; the other rows keep the zero they were given.
  const kernel::Amax amax = kernel::amax(source(tile));
  stats[tile.row0] = amax.value;
  return amax.non_finite;
}

template <DType D>
void Fp8Tensor<D>::finish(const Layout& layout, const ChooseOptions&, int, float* stats, Parameters& parameters) {
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    const float* rows = stats + expert * layout.rows;
    const float amax = *std::max_element(rows, rows + layout.rows);
    float scale = amax / Codec<D>::kMax;
    if (amax == 0)
      scale = 1.0f;
    else if (!std::isfinite(1.0f / scale))
      scale = std::numeric_limits<float>::min();
    floats(parameters, 1)[expert] = scale;
  }
}

template <DType D>
void Fp8Tensor<D>::encode(const Layout& layout, const Parameters& parameters, const Tile& tile,
                          const Rounding& rounding, std::byte* codes) {
  const float r = multiplier(floats(parameters, 1)[tile.row0 / layout.rows]);
  kernel::encode_fp8(source(tile), kernel::Scales::scalar(&r), D, reinterpret_cast<uint8_t*>(codes) + tile.col0,
                     layout.row_bytes, rounding, element_index(layout, tile));
}

template <DType D>
void Fp8Tensor<D>::decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0,
                          int64_t cols, const std::byte* codes, float* out, int64_t out_stride) {
  kernel::decode_fp8(reinterpret_cast<const uint8_t*>(codes) + col0, D, rows, cols, layout.row_bytes,
                     scales(layout, parameters, row0), out, out_stride);
}

// With y = w * r: r and y carry a relative error of 2^-24 each, y is clamped, rounding moves it by half a step
// (relative 2^-(M+1) above the smallest normal code, kStep / 2 below), and the product with s rounds once more.
template <DType D>
void Fp8Tensor<D>::error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const double scale = floats(parameters, 1)[tile.row0 / layout.rows];
  const double relative = std::ldexp(1.0, -(Codec<D>::kMantissaBits + 1));
  const double absolute = scale * Codec<D>::kStep / 2;
  const double largest = scale * static_cast<double>(Codec<D>::kMax);
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t c = 0; c < tile.cols; ++c) {
      const double x = std::abs(static_cast<double>(values[r * tile.row_stride + c]));
      const double step = std::max(x * relative, absolute);
      const double saturated = std::max(0.0, x - largest);
      bound[r * tile.cols + c] = std::isfinite(x) ? round_up(step * (1 + 0x1p-20) + x * 0x1p-21 + saturated + 0x1p-149)
                                                  : std::numeric_limits<float>::infinity();
    }
}

template <DType D>
bool Fp8Tensor<D>::scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 1, exponent);
}

template <DType D>
Recognition Fp8Tensor<D>::recognise(const Format& format, const StoredLayer& layer) {
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const bool own_label = layer.label == format.name;
  const bool family = std::find(std::begin(kFamily), std::end(kFamily), layer.label) != std::end(kFamily);
  if (!own_label && !family && !layer.label.empty()) return {};
  if (!own_label && (weight.dtype != D || scale == nullptr))
    return {};  // without a scale: a plain tensor of fp8 values

  const LayerKind kind = weight.shape.size() == 3 ? LayerKind::expert_bank : LayerKind::linear;
  const auto description = describe(format, {weight.shape, kind}, {});
  if (!description.layout) {
    if (!own_label) return {};
    return {Fit::broken,
            {},
            {tell(weight) + ", which cannot hold " + std::string(format.name) + ": " + description.refusal + "."}};
  }
  Recognition recognition{Fit::none, *description.layout, {}};
  const std::string own_name(name(D));
  if (weight.dtype == DType::u8 || weight.dtype == DType::i8)
    recognition.problems.push_back(tell(weight) + ", not " + own_name +
                                   ": ComfyUI would convert the numbers instead of reading them as codes.");
  else if (weight.dtype != D) {
    recognition.problems.push_back(tell(weight) + ", but " + std::string(format.name) + " stores " + own_name + ".");
    recognition.layout.format = nullptr;
  }
  bool readable = weight.dtype == D;
  if (scale == nullptr) {
    recognition.problems.push_back("weight_scale is missing; the codes mean nothing without it.");
    readable = false;
  } else {
    const auto count = element_count(scale->shape).value_or(0);
    const bool fits =
        is_scale_dtype(scale->dtype) && (count == 1 || scale->shape == recognition.layout.tensors[1].shape);
    if (!fits) {
      recognition.problems.push_back(tell(*scale) + ", but " + std::string(format.name) + " has one scale, F32 " +
                                     to_string(recognition.layout.tensors[1].shape) + ".");
      readable = false;
    } else if (scale->shape.size() > 1) {
      recognition.problems.push_back(tell(*scale) + "; a single scale is stored as [].");
    } else if (scale->dtype == DType::f64) {
      recognition.problems.push_back(tell(*scale) + "; loaders expect F32.");
    }
  }
  if (own_label) {
    recognition.fit = readable ? Fit::labelled : Fit::broken;
  } else if (!readable) {
    return {};
  } else if (layer.label.empty()) {
    recognition.fit = Fit::unlabelled;
  } else {
    recognition.fit = Fit::mislabelled;
    recognition.problems.insert(recognition.problems.begin(), "The marker says " + std::string(layer.label) +
                                                                  ", but dtype and scale are those of " +
                                                                  std::string(format.name) + ".");
  }
  return recognition;
}

template <DType D>
void Fp8Tensor<D>::verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
}

template struct Fp8Tensor<DType::f8_e4m3>;
template struct Fp8Tensor<DType::f8_e5m2>;

}  // namespace mezzotint::formats
