#pragma once
#include <cmath>
#include <limits>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"

/// What formats of signed 8-bit codes with float32 scales share: code = rint(w / s) clamped, weight = code * s.
namespace mezzotint::formats::int8_codes {

/// max(amax / 127, floor): a division, as comfy-kitchen's eager backend does it. The floor keeps zeros finite.
inline float scale_of(float amax, float floor) {
  const float scale = amax / 127.0f;
  return scale > floor ? scale : floor;
}

inline void encode(const Layout& layout, const kernel::Scales& scales, int lowest, const Tile& tile,
                   const Rounding& rounding, std::byte* codes) {
  kernel::encode_int8(source(tile), scales, lowest, reinterpret_cast<int8_t*>(codes) + tile.col0, layout.row_bytes,
                      rounding, element_index(layout, tile));
}

/// `Out` is float, or uint16_t for bf16.
template <class Out>
void decode(const Layout& layout, const kernel::Scales& scales, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride) {
  kernel::decode_int8(reinterpret_cast<const int8_t*>(codes) + col0, rows, cols, layout.row_bytes, scales, out,
                      out_stride);
}

/// Half a step, plus what the division and the product round (relative 2^-24 each), plus what lies beyond +-127 steps.
inline float error_bound(float value, float scale) {
  const double x = std::abs(static_cast<double>(value));
  const double s = scale;
  if (!std::isfinite(x)) return std::numeric_limits<float>::infinity();
  const double saturated = x > 127 * s ? x - 127 * s : 0;
  return round_up(0.5 * s + x * 0x1p-22 + saturated + 0x1p-149);
}

/// Why a weight cannot hold the codes of `format`, or "".
inline std::string weight_problem(const TensorFacts& weight, LayerKind kind, std::string_view format) {
  if (const std::string refusal = refuse_shape({weight.shape, kind}); !refusal.empty())
    return tell(weight) + ", which cannot hold " + std::string(format) + ": " + refusal + ".";
  if (weight.dtype != DType::i8 && weight.dtype != DType::u8)
    return tell(weight) + ", but " + std::string(format) + " stores I8.";
  return "";
}

/// A sound layer of `format`, whatever its label says: how well it fits, and what canonical dtypes would mend.
inline Recognition sound(const StoredLayer& layer, const TensorFacts& scale, std::string_view format, Layout layout) {
  const TensorFacts& weight = layer.tensors[0];
  Recognition recognition{layer.label == format ? Fit::labelled
                          : layer.label.empty() ? Fit::unlabelled
                                                : Fit::mislabelled,
                          std::move(layout),
                          {}};
  if (recognition.fit == Fit::mislabelled)
    recognition.problems.push_back("The marker says " + std::string(layer.label) + ", but the scale is that of " +
                                   std::string(format) + ".");
  if (weight.dtype == DType::u8)
    recognition.problems.push_back(tell(weight) + "; the codes are signed and belong in I8.");
  if (scale.dtype == DType::f64) recognition.problems.push_back(tell(scale) + "; loaders expect F32.");
  return recognition;
}

}  // namespace mezzotint::formats::int8_codes
