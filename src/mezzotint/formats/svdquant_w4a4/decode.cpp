#include "mezzotint/formats/common/stored_floats.h"
#include "mezzotint/formats/svdquant_w4a4/layout.h"
#include "mezzotint/formats/svdquant_w4a4/low_rank.h"

namespace mezzotint::formats::svdquant_w4a4 {
namespace {

bool is_tiled(const Layout& layout, size_t tensor) {
  return layout.tensors[tensor].shape.size() > 2;
}

/// Where the code of an element lies, from the code of the first row of its tile (or its own row, where not tiled).
/// Tiles are [K/64][row / 4 of 128][row % 4][32 bytes].
int64_t byte_of(const Layout& layout, int64_t row, int64_t col) {
  if (!is_tiled(layout, kWeightAt)) return row * layout.row_bytes + col / 2;
  const int64_t tile = row / kTileRows * kTileRows * layout.row_bytes;
  return tile + (col / kGroup * kTileRows + row % kTileRows) * (kGroup / 2) + col % kGroup / 2;
}

int code_at(const Layout& layout, const std::byte* codes, int64_t row, int64_t col) {
  const int nibble = std::to_integer<int>(codes[byte_of(layout, row, col)] >> (col % 2 * 4)) & 15;
  return nibble < 8 ? nibble : nibble - 16;
}

/// Index of the scale of a row and group: [K/64, N], or tiles [N/128, K/64, 128].
int64_t scale_index(const Layout& layout, int64_t row, int64_t group) {
  if (!is_tiled(layout, kScaleAt)) return group * layout.rows + row;
  return (row / kTileRows * (layout.cols / kGroup) + group) * kTileRows + row % kTileRows;
}

/// Index of an element of the up projection: [N, R], or tiles [N/128, R, 128].
int64_t up_index(const Layout& layout, int64_t row, int64_t k, int64_t rank) {
  if (!is_tiled(layout, kUpAt)) return row * rank + k;
  return (row / kTileRows * rank + k) * kTileRows + row % kTileRows;
}

}  // namespace

void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  const std::vector<float> scale = widened(layout, parameters, kScaleAt), up = widened(layout, parameters, kUpAt),
                           down = widened(layout, parameters, kDownAt), smooth = widened(layout, parameters, kSmoothAt);
  const int64_t rank = layout.tensors[kDownAt].shape[1];
  // Only the columns asked for, and one row per rank.
  std::vector<float> down_rows(static_cast<size_t>(rank * cols));
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t k = 0; k < rank; ++k)
      down_rows[static_cast<size_t>(k * cols + c)] = down[static_cast<size_t>((col0 + c) * rank + k)];
  std::vector<float> up_row(static_cast<size_t>(rank)), low_rank(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row0 + r;
    for (int64_t k = 0; k < rank; ++k)
      up_row[static_cast<size_t>(k)] = up[static_cast<size_t>(up_index(layout, row, k, rank))];
    kernel::with_isa(
        [&]<kernel::Isa I> { low_rank_row<I>(up_row.data(), down_rows.data(), cols, rank, cols, low_rank.data()); });
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t col = col0 + c;
      const float s = scale[static_cast<size_t>(scale_index(layout, row, col / kGroup))];
      const float quantized = static_cast<float>(code_at(layout, codes, r, col)) * s / smooth[static_cast<size_t>(col)];
      out[r * out_stride + c] = quantized + low_rank[static_cast<size_t>(c)];
    }
  }
}

}  // namespace mezzotint::formats::svdquant_w4a4
