#include "mezzotint/formats/common/fp8_tensor.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/formats/common/fp8_codes.h"
#include "mezzotint/formats/common/pieces.h"
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
Recognition Fp8Tensor<D>::recognise(const Format& format, const StoredLayer& layer) {
  const TensorFacts& weight = layer.tensors[0];
  const TensorFacts* scale = layer.find("weight_scale");
  const bool own_label = layer.label == format.name;
  if (!own_label && !fp8_codes::is_family(layer.label) && !layer.label.empty()) return {};
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

template struct Fp8Tensor<DType::f8_e4m3>;
template struct Fp8Tensor<DType::f8_e5m2>;

}  // namespace mezzotint::formats
