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

inline void decode(const Layout& layout, const kernel::Scales& scales, int64_t rows, int64_t col0, int64_t cols,
                   const std::byte* codes, float* out, int64_t out_stride) {
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

}  // namespace mezzotint::formats::int8_codes
