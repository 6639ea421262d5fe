#pragma once
#include "mezzotint/formats/common/fp8_codes.h"
#include "mezzotint/formats/format.h"

/// 8-bit floats with one float32 scale per matrix (float8_e4m3fn, float8_e5m2). A format row gives its dtype as a
/// template argument. weight = code * weight_scale. Codes are those of fp8_codes.h.
///
///     s = amax / MAX            a division; 2^-126 where 1 / s would overflow, 1 where the weight is all zeros
///     r = 1 / s                 rounded on its own, as comfy-kitchen's eager backend does it
///     code = fp8(clamp(w * r, -MAX, MAX))
///
/// inf and NaN take no part in amax; inf saturates, NaN becomes the NaN code.
namespace mezzotint::formats {

template <DType D>
struct Fp8Tensor {
  static Description describe(const Format& format, const LayerFacts& facts, const Options& options);
  static ChoosePlan choose_plan(const Layout& layout, const ChooseOptions& choose);
  static bool observe(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
                      Parameters& parameters);
  static void finish(const Layout& layout, const ChooseOptions& choose, int pass, float* stats, Parameters& parameters);
  static Recognition recognise(const Format& format, const StoredLayer& layer);
};

extern template struct Fp8Tensor<DType::f8_e4m3>;
extern template struct Fp8Tensor<DType::f8_e5m2>;

/// Tensors that loaders of these formats read beside the layer.
inline constexpr std::string_view kFp8Companions[] = {"input_scale"};

}  // namespace mezzotint::formats
