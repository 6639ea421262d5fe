#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "mezzotint/formats/asym_w4a8_int8/layout.h"
#include "mezzotint/formats/common/pieces.h"

namespace mezzotint::formats::asym_w4a8_int8 {
namespace {

/// Levels of a group in ascending order.
struct Levels {
  std::array<double, 63> value;
  size_t count = 0;
};
Levels levels_of(const kernel::LevelCodes& how, double relative) {
  Levels levels;
  levels.count = how.bits == 6 ? 63 : 16;
  for (size_t i = 0; i < levels.count; ++i) {
    const double base = how.bits == 6 ? static_cast<double>(i) - 31 : static_cast<double>(how.base[i]);
    levels.value[i] =
        std::clamp(std::nearbyint(static_cast<double>(static_cast<float>(base * relative))), -127.0, 127.0);
  }
  std::sort(levels.value.begin(), levels.value.begin() + static_cast<int64_t>(levels.count));
  return levels;
}

/// Half the distance of the levels around t; beyond the last level the distance to it.
double reach(const Levels& levels, double t) {
  const auto* first = levels.value.data();
  const auto* last = first + levels.count - 1;
  if (t <= *first) return *first - t;
  if (t >= *last) return t - *last;
  const auto* above = std::lower_bound(first, last, t);
  return (*above - *(above - 1)) / 2;
}

}  // namespace

void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  const kernel::LevelCodes how = level_codes(layout, parameters);
  const kernel::LevelScales scales = level_scales(layout, parameters);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t row = tile.row0 + r;
    const double channel = scales.channel[row];
    Levels levels;
    int64_t group = -1;
    double correction = 0;
    for (int64_t c = 0; c < tile.cols; ++c) {
      if (const int64_t g = (tile.col0 + c) / layout.block_cols; g != group) {
        group = g;
        levels = levels_of(how, static_cast<double>(relative_at(layout, parameters, row, g)));
        if (scales.correction != nullptr) correction = scales.correction[g * layout.rows + row];
      }
      const double x = values[r * tile.row_stride + c];
      // What the subtraction, the division, the differences from the levels and the product round: at most 2^-22 of
      // the largest number among them.
      const double rounded = (std::abs(x) + std::abs(correction) + 127 * channel) * 0x1p-22;
      bound[r * tile.cols + c] =
          std::isfinite(x) ? round_up(channel * reach(levels, (x - correction) / channel) + rounded + 0x1p-149)
                           : std::numeric_limits<float>::infinity();
    }
  }
}

}  // namespace mezzotint::formats::asym_w4a8_int8
