#include "mezzotint/convert/merging/scales.h"

#include <algorithm>
#include <cmath>

#include "mezzotint/base/round_up.h"

namespace mezzotint::convert {
namespace {

// A scale derived from decoded values differs from the stored one by rounding alone: not a reason to move.
constexpr double kSame = 1e-6;
// Down to this ratio a smaller scale gains less than what it costs to round again.
constexpr double kHardlySmaller = 0.9;

void follow(formats::ScaleUpdate update, const formats::Bytes& stored, size_t first, size_t count,
            formats::Bytes& chosen) {
  const auto* before = reinterpret_cast<const float*>(stored.data());
  auto* now = reinterpret_cast<float*>(chosen.data());
  for (size_t i = first; i < first + count; ++i) now[i] = follow_scale(update, before[i], now[i]);
}

bool follows(const formats::Layout& layout, size_t tensor) {
  return layout.format->scale_update != formats::ScaleUpdate::fresh && layout.tensors[tensor].dtype == DType::f32;
}

}  // namespace

float follow_scale(formats::ScaleUpdate update, float stored, float chosen) {
  if (!(stored > 0 && chosen > 0) || !std::isfinite(stored) || !std::isfinite(chosen)) return chosen;
  const double ratio = static_cast<double>(chosen) / static_cast<double>(stored);
  switch (update) {
    case formats::ScaleUpdate::fresh:
      return chosen;
    case formats::ScaleUpdate::enough:
      return ratio <= 1 + kSame && ratio > kHardlySmaller ? stored : chosen;
    case formats::ScaleUpdate::power_of_two: {
      const int exponent = static_cast<int>(std::max(0.0, std::ceil(std::log2(ratio) - kSame)));
      const float moved = std::ldexp(stored, exponent);
      return std::isfinite(moved) ? moved : chosen;
    }
  }
  return chosen;
}

void follow_scales(const formats::Layout& layout, const formats::Parameters& stored, formats::Parameters& chosen) {
  for (size_t i = 1; i < layout.tensors.size(); ++i)
    if (follows(layout, i))
      follow(layout.format->scale_update, stored.tensors[i], 0, chosen.tensors[i].size() / sizeof(float),
             chosen.tensors[i]);
}

void follow_scales(const formats::Layout& layout, const formats::Parameters& stored, const formats::RowRange& rows,
                   formats::Parameters& chosen) {
  const int64_t height = layout.block_rows == 0 ? layout.rows : layout.block_rows;
  const int64_t per_expert = divide_up(layout.rows, height), blocks = per_expert * layout.experts;
  const int64_t expert = rows.row0 / layout.rows, row0 = rows.row0 % layout.rows;
  const int64_t first = expert * per_expert + row0 / height;
  const int64_t end = expert * per_expert + divide_up(row0 + rows.rows, height);
  for (size_t i = 1; i < layout.tensors.size(); ++i) {
    const auto count = static_cast<int64_t>(chosen.tensors[i].size() / sizeof(float));
    if (!follows(layout, i) || count < blocks || count % blocks != 0) continue;
    const int64_t each = count / blocks;
    follow(layout.format->scale_update, stored.tensors[i], static_cast<size_t>(first * each),
           static_cast<size_t>((end - first) * each), chosen.tensors[i]);
  }
}

}  // namespace mezzotint::convert
