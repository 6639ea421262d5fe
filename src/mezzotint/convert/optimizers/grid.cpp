#include "mezzotint/convert/optimizers/grid.h"

#include <algorithm>
#include <cmath>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/base/round_up.h"
#include "mezzotint/formats/common/swizzle.h"
#include "mezzotint/formats/matmul.h"

namespace mezzotint::convert {
namespace {

using kernel::BlockScales;
using kernel::ElementCode;
using kernel::Grid;
using kernel::ScaleCode;

std::optional<Grid> grid_of(ElementCode code) {
  switch (code) {
    case ElementCode::e4m3:
      return Grid{3, -6, -448.0f, 448.0f};
    case ElementCode::e5m2:
      return Grid{2, -14, -57344.0f, 57344.0f};
    case ElementCode::e2m1:
      return Grid{1, 0, -6.0f, 6.0f};
    case ElementCode::int8:
      return Grid{23, 23, -127.0f, 127.0f};
    case ElementCode::int4:  // -8 is never written
      return Grid{23, 23, -7.0f, 7.0f};
    case ElementCode::f32:
    case ElementCode::bf16:
    case ElementCode::f16:
      break;
  }
  return std::nullopt;
}

float block_scale(const BlockScales& s, int64_t row, int64_t block) {
  const int64_t at = s.blocked ? formats::swizzle::offset(row, block, s.stride) : row / s.block_rows * s.stride + block;
  switch (s.code) {
    case ScaleCode::none:
      return 1.0f;
    case ScaleCode::f32:
      return static_cast<const float*>(s.data)[at];
    case ScaleCode::e4m3:
      return E4m3::decode(static_cast<const uint8_t*>(s.data)[at]);
    case ScaleCode::e8m0: {
      const uint8_t code = static_cast<const uint8_t*>(s.data)[at];
      return code == 0 ? 0.0f : E8m0::decode(code);
    }
  }
  return 1.0f;
}

}  // namespace

std::optional<ScaledGrid> ScaledGrid::of(const formats::Layout& layout, const formats::Parameters& parameters,
                                         int64_t row0, int64_t rows, int64_t padded_rows) {
  if (layout.format->matmul_form == nullptr) return std::nullopt;
  const formats::MatmulForm form = layout.format->matmul_form(layout, parameters, row0 / layout.rows);
  if (form.grid != nullptr) return std::nullopt;
  const auto grid = grid_of(form.codes.code);
  if (!grid) return std::nullopt;

  ScaledGrid out;
  out.grid_ = *grid;
  out.padded_rows_ = padded_rows;
  const BlockScales& s = form.codes.scales;
  const bool in_blocks = s.code != ScaleCode::none && s.block_cols > 0;
  out.block_cols_ = in_blocks ? s.block_cols : std::max<int64_t>(layout.cols, 1);
  const int64_t blocks = divide_up(layout.cols, out.block_cols_);
  out.scales_.assign(static_cast<size_t>(blocks * padded_rows), 1.0f);
  out.inverses_.assign(out.scales_.size(), 1.0f);
  const int64_t first = row0 % layout.rows;
  for (int64_t r = 0; r < rows; ++r) {
    const float of_row =
        (form.row_scale != nullptr ? form.row_scale[first + r] : 1.0f) * (form.scale != nullptr ? *form.scale : 1.0f);
    for (int64_t b = 0; b < blocks; ++b) {
      const float scale = block_scale(s, first + r, b) * of_row;
      const float inverse = 1.0f / scale;
      const bool sound = std::isfinite(inverse) && std::isfinite(scale);
      out.scales_[static_cast<size_t>(b * padded_rows + r)] = sound ? scale : 0.0f;
      out.inverses_[static_cast<size_t>(b * padded_rows + r)] = sound ? inverse : 0.0f;
    }
  }
  return out;
}

ScaledGrid ScaledGrid::of_rows(int bits, const float* values, int64_t rows, int64_t cols, int64_t padded_rows) {
  const auto largest = static_cast<float>((1 << (bits - 1)) - 1);
  ScaledGrid out;
  out.grid_ = {23, 23, -largest, largest};
  out.padded_rows_ = padded_rows;
  out.block_cols_ = std::max<int64_t>(cols, 1);
  out.scales_.assign(static_cast<size_t>(padded_rows), 1.0f);
  out.inverses_.assign(out.scales_.size(), 1.0f);
  for (int64_t r = 0; r < rows; ++r) {
    float most = 0;
    for (int64_t c = 0; c < cols; ++c) most = std::max(most, std::abs(values[r * cols + c]));
    const float scale = most / largest, inverse = 1.0f / scale;
    const bool sound = std::isfinite(inverse) && std::isfinite(scale);
    out.scales_[static_cast<size_t>(r)] = sound ? scale : 0.0f;
    out.inverses_[static_cast<size_t>(r)] = sound ? inverse : 0.0f;
  }
  return out;
}

}  // namespace mezzotint::convert
