#include "mezzotint/convert/optimizers/subspace.h"

#include <algorithm>

#include "mezzotint/base/philox.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

using dense::Transposed;
constexpr int64_t kMoreVectors = 10;
constexpr int kIterations = 4;

/// out = H v for v [n, width]; the diagonal tiles are full.
void multiply(const LowerTiles& h, const float* v, int64_t width, float* out, TileBuffers& buffers) {
  std::fill_n(out, h.order() * width, 0.0f);
  for (const auto& [i, j] : tile_pairs(h.across())) {
    const float* tile = h.read(i, j, buffers[0]);
    dense::multiply(Transposed::no, Transposed::no, h.size(i), width, h.size(j), 1.0f, tile, kTileStride,
                    v + h.first(j) * width, width, 1.0f, out + h.first(i) * width, width);
    if (i == j) continue;
    dense::multiply(Transposed::yes, Transposed::no, h.size(j), width, h.size(i), 1.0f, tile, kTileStride,
                    v + h.first(i) * width, width, 1.0f, out + h.first(j) * width, width);
  }
}

}  // namespace

void project_on_leading_eigenvectors(LowerTiles& h, int64_t rank, TileBuffers& buffers) {
  const int64_t n = h.order();
  rank = std::clamp<int64_t>(rank, 0, n);
  const int64_t width = std::min(n, rank + std::max(kMoreVectors, rank));
  std::vector<float> v(static_cast<size_t>(n * width)), next(v.size());
  for (size_t i = 0; i < v.size(); ++i)  // uniform in [-1, 1)
    v[i] = static_cast<float>(random_bits(0, i)) * 0x1p-31f - 1.0f;
  for (int iteration = 0; iteration <= kIterations; ++iteration) {
    multiply(h, v.data(), width, next.data(), buffers);
    std::swap(v, next);
    dense::orthonormalize(n, width, v.data(), width);
  }
  // Rayleigh-Ritz: the eigenvectors of V'HV tell which directions within the basis lead.
  multiply(h, v.data(), width, next.data(), buffers);
  std::vector<float> small(static_cast<size_t>(width * width)), values(static_cast<size_t>(width));
  dense::multiply(Transposed::yes, Transposed::no, width, width, n, 1.0f, v.data(), width, next.data(), width, 0.0f,
                  small.data(), width);
  dense::eigenvectors(width, small.data(), width, values.data());
  // Rows of `small` are eigenvectors, the leading ones last.
  dense::multiply(Transposed::no, Transposed::yes, n, rank, width, 1.0f, v.data(), width,
                  small.data() + (width - rank) * width, width, 0.0f, next.data(), rank);
  for (const auto& [i, j] : tile_pairs(h.across())) {
    float* tile = h.open(i, j, buffers[0]);
    dense::multiply(Transposed::no, Transposed::yes, h.size(i), h.size(j), rank, 1.0f, next.data() + h.first(i) * rank,
                    rank, next.data() + h.first(j) * rank, rank, 0.0f, tile, kTileStride);
    h.close(i, j, tile);
  }
}

}  // namespace mezzotint::convert
