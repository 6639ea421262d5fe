#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "mezzotint/convert/optimizers/tiles.h"

/// The matrix H in which rounding errors are measured, and its factor.
///
/// e H e' of the error e of a row of a weight is the mean square of what the layer's output changes by, if H = X'X / T
/// over inputs X. Without data, H = W'W / mean(diag) + 0.3 I stands in for it (algorithms.md 6.4: inputs of trained
/// layers lie where their weights are large). Rows and columns are in the order of rounding, reversed: position n - 1
/// is rounded first.
///
/// The steps below are cut into pieces that may run on several threads; the bits depend on n and on the order of the
/// panels only.
namespace mezzotint::convert {

/// Scratch of one thread: three tiles, and what products of bf16 need.
struct TileBuffers {
  std::vector<float> data;
  std::vector<std::byte> products;
  float* operator[](int i) {
    if (data.empty()) data.resize(3 * LowerTiles::kTileFloats);
    return data.data() + i * LowerTiles::kTileFloats;
  }
};

/// Pairs (i, j), i >= j, of a tiled triangle by number.
struct TilePair {
  int64_t i, j;
};
std::vector<TilePair> tile_pairs(int64_t across);

/// H_ij += P_i' P_j for a panel P [rows, n] of weights or inputs, columns by position. One piece for every pair.
void add_panel(LowerTiles& h, TilePair pair, const float* panel, int64_t rows, int64_t stride, TileBuffers& buffers);

/// The same of a panel that is transposed and in bf16: [n, rows], `stride` values from one row to the next. Products of
/// bf16 are exact in float32, so it is no less exact where weights are stored as bf16.
void add_panel_bf16(LowerTiles& h, TilePair pair, const uint16_t* panel, int64_t rows, int64_t stride,
                    TileBuffers& buffers);
/// Whether this processor multiplies bf16; without, products of bf16 are computed in float32, at its speed.
bool has_bf16_products();
/// Bytes of TileBuffers::products, at most.
uint64_t bf16_scratch_bytes();

/// H = factor * H, and both triangles of the diagonal tiles are filled. One piece for every pair.
void scale_tiles(LowerTiles& h, TilePair pair, float factor, TileBuffers& buffers);

/// The diagonal.
std::vector<float> diagonal(const LowerTiles& h);
/// H += amount[p] on the diagonal.
void add_to_diagonal(LowerTiles& h, std::span<const float> amount);

/// Cholesky, H = L L', tile column by tile column: for j = 0, 1, ...: update_column for every i >= j, then
/// factor_pivot, then solve_column for every i > j. `l` starts as a copy of `h` made by update_column.
void update_column(const LowerTiles& h, LowerTiles& l, int64_t i, int64_t j, TileBuffers& buffers);
/// False where H is not positive definite.
bool factor_pivot(LowerTiles& l, int64_t j, TileBuffers& buffers);
void solve_column(LowerTiles& l, int64_t i, int64_t j, TileBuffers& buffers);

/// All of it on the calling thread.
bool factor(const LowerTiles& h, LowerTiles& l);

}  // namespace mezzotint::convert
