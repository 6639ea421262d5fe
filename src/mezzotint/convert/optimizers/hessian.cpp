#include "mezzotint/convert/optimizers/hessian.h"

#include "mezzotint/kernel/dense.h"
#include "mezzotint/kernel/gemm/float_gemm.h"

namespace mezzotint::convert {
namespace {

using dense::Transposed;

/// y[m, n] = x[m, depth] * w[n, depth]^T
kernel::FloatGemm bf16_product(const uint16_t* x, int64_t m, const uint16_t* w, int64_t n, int64_t depth,
                               int64_t stride) {
  kernel::FloatGemm product;
  product.x = kernel::Operand::of({x, DType::bf16, m, depth, stride});
  product.w = kernel::Operand::of({w, DType::bf16, n, depth, stride});
  return product;
}

}  // namespace

std::vector<TilePair> tile_pairs(int64_t across) {
  std::vector<TilePair> pairs;
  for (int64_t i = 0; i < across; ++i)
    for (int64_t j = 0; j <= i; ++j) pairs.push_back({i, j});
  return pairs;
}

void add_panel(LowerTiles& h, TilePair pair, const float* panel, int64_t rows, int64_t stride, TileBuffers& buffers) {
  const auto [i, j] = pair;
  float* tile = h.open(i, j, buffers[0]);
  const float* left = panel + h.first(i);
  if (i == j)
    dense::add_gram(h.size(i), rows, left, stride, tile, kTileStride);
  else
    dense::multiply(Transposed::yes, Transposed::no, h.size(i), h.size(j), rows, 1.0f, left, stride, panel + h.first(j),
                    stride, 1.0f, tile, kTileStride);
  h.close(i, j, tile);
}

void add_panel_bf16(LowerTiles& h, TilePair pair, const uint16_t* panel, int64_t rows, int64_t stride,
                    TileBuffers& buffers) {
  const auto [i, j] = pair;
  float* tile = h.open(i, j, buffers[0]);
  float* result = buffers[1];
  // A diagonal tile in strips, of which only what reaches below the diagonal is computed.
  const int64_t strip = i == j ? 256 : kTileStride;
  for (int64_t first = 0; first < h.size(i); first += strip) {
    const int64_t m = std::min(strip, h.size(i) - first), n = i == j ? first + m : h.size(j);
    const kernel::FloatGemm product =
        bf16_product(panel + (h.first(i) + first) * stride, m, panel + h.first(j) * stride, n, rows, stride);
    const size_t bytes = kernel::float_gemm_scratch(product, 1);
    if (buffers.products.size() < bytes) buffers.products.resize(bytes);
    kernel::float_gemm(product, {result, DType::f32, kTileStride}, buffers.products.data(), 1);
    for (int64_t r = 0; r < m; ++r)
      for (int64_t c = 0; c < n; ++c) tile[(first + r) * kTileStride + c] += result[r * kTileStride + c];
  }
  h.close(i, j, tile);
}

bool has_bf16_products() {
  return kernel::computes_in_bf16(bf16_product(nullptr, kTileStride, nullptr, kTileStride, kTileStride, kTileStride));
}

uint64_t bf16_scratch_bytes() {
  return kernel::float_gemm_scratch(bf16_product(nullptr, kTileStride, nullptr, kTileStride, 1 << 12, 1 << 12), 1);
}

void scale_tiles(LowerTiles& h, TilePair pair, float factor, TileBuffers& buffers) {
  const auto [i, j] = pair;
  float* tile = h.open(i, j, buffers[0]);
  for (int64_t r = 0; r < h.size(i); ++r) {
    const int64_t columns = i == j ? r + 1 : h.size(j);
    for (int64_t c = 0; c < columns; ++c) tile[r * kTileStride + c] *= factor;
    if (i != j) continue;
    for (int64_t c = 0; c < r; ++c) tile[c * kTileStride + r] = tile[r * kTileStride + c];
  }
  h.close(i, j, tile);
}

std::vector<float> diagonal(const LowerTiles& h) {
  TileBuffers buffers;
  std::vector<float> out;
  for (int64_t i = 0; i < h.across(); ++i) {
    const float* tile = h.read(i, i, buffers[0]);
    for (int64_t r = 0; r < h.size(i); ++r) out.push_back(tile[r * kTileStride + r]);
  }
  return out;
}

void add_to_diagonal(LowerTiles& h, std::span<const float> amount) {
  TileBuffers buffers;
  for (int64_t i = 0; i < h.across(); ++i) {
    float* tile = h.open(i, i, buffers[0]);
    for (int64_t r = 0; r < h.size(i); ++r) tile[r * kTileStride + r] += amount[static_cast<size_t>(h.first(i) + r)];
    h.close(i, i, tile);
  }
}

void update_column(const LowerTiles& h, LowerTiles& l, int64_t i, int64_t j, TileBuffers& buffers) {
  const float* from = h.read(i, j, buffers[1]);
  float* tile = l.open(i, j, buffers[0]);
  std::copy_n(from, h.size(i) * kTileStride, tile);
  for (int64_t k = 0; k < j; ++k) {
    const float* left = l.read(i, k, buffers[1]);
    const float* right = i == j ? left : l.read(j, k, buffers[2]);
    dense::multiply(Transposed::no, Transposed::yes, l.size(i), l.size(j), l.size(k), -1.0f, left, kTileStride, right,
                    kTileStride, 1.0f, tile, kTileStride);
  }
  l.close(i, j, tile);
}

bool factor_pivot(LowerTiles& l, int64_t j, TileBuffers& buffers) {
  float* tile = l.open(j, j, buffers[0]);
  const bool positive = dense::factor_cholesky(l.size(j), tile, kTileStride);
  l.close(j, j, tile);
  return positive;
}

void solve_column(LowerTiles& l, int64_t i, int64_t j, TileBuffers& buffers) {
  const float* pivot = l.read(j, j, buffers[1]);
  float* tile = l.open(i, j, buffers[0]);
  dense::solve_right(l.size(i), l.size(j), pivot, kTileStride, tile, kTileStride);
  l.close(i, j, tile);
}

bool factor(const LowerTiles& h, LowerTiles& l) {
  TileBuffers buffers;
  for (int64_t j = 0; j < h.across(); ++j) {
    for (int64_t i = j; i < h.across(); ++i) update_column(h, l, i, j, buffers);
    if (!factor_pivot(l, j, buffers)) return false;
    for (int64_t i = j + 1; i < h.across(); ++i) solve_column(l, i, j, buffers);
  }
  return true;
}

}  // namespace mezzotint::convert
