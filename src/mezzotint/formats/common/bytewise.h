#pragma once
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/driver.h"

namespace mezzotint::formats {

/// The row of a format that stores every value as one byte, without scales, from two functions. `Self` is the row, an
/// object with a name of its own:
///   extern const Format format_log8;
///   const Format format_log8 = bytewise<format_log8, encode, decode>("log8", "8-bit logarithms");
/// Encode must take every float; its rounding is the one mode there is. The error bound is the error. Products decode
/// rows; a runtime may register better (tensor/registry.h).
template <const Format& Self, uint8_t (*Encode)(float), float (*Decode)(uint8_t)>
constexpr Format bytewise(std::string_view name, std::string_view summary) {
  return {
      .name = name,
      .summary = summary,
      .support = {.loaders = "programs that bring it", .fast_on = "nothing", .nearest = "fp16"},
      .describe = [](const LayerFacts& facts, const Options& options) -> Description {
        if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
        return {matrix_layout(Self, facts.shape, complete_options(Self, options), DType::u8), ""};
      },
      .encode =
          [](const Layout& layout, const Parameters&, const Tile& tile, const Rounding&, std::byte* codes) {
            std::vector<float> scratch;
            const auto* values = static_cast<const float*>(float_tile(tile, scratch).data);
            for (int64_t r = 0; r < tile.rows; ++r)
              for (int64_t c = 0; c < tile.cols; ++c)
                codes[r * layout.row_bytes + tile.col0 + c] = std::byte{Encode(*values++)};
          },
      .decode =
          [](const Layout& layout, const Parameters&, int64_t, int64_t rows, int64_t col0, int64_t cols,
             const std::byte* codes, float* out, int64_t out_stride) {
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t c = 0; c < cols; ++c)
                out[r * out_stride + c] = Decode(std::to_integer<uint8_t>(codes[r * layout.row_bytes + col0 + c]));
          },
      .error_bound =
          [](const Layout&, const Parameters&, const Tile& tile, float* bound) {
            const auto* values = static_cast<const float*>(tile.data);
            for (int64_t r = 0; r < tile.rows; ++r)
              for (int64_t c = 0; c < tile.cols; ++c) {
                const float x = values[r * tile.row_stride + c];
                *bound++ = std::isfinite(x) ? std::fabs(x - Decode(Encode(x))) : std::numeric_limits<float>::infinity();
              }
          },
      .recognise = [](const StoredLayer& layer) -> Recognition {
        if (layer.label != Self.name) return {};
        const TensorFacts& codes = layer.tensors[0];
        const auto kind = codes.shape.size() == 3 ? LayerKind::expert_bank : LayerKind::linear;
        if (const std::string refusal = refuse_shape({codes.shape, kind}); !refusal.empty() || codes.dtype != DType::u8)
          return {Fit::broken, {}, {"The codes are " + tell(codes) + "."}};
        return {Fit::labelled, matrix_layout(Self, codes.shape, complete_options(Self, {}), DType::u8), {}};
      },
  };
}

}  // namespace mezzotint::formats
