#include "mezzotint/formats/svdquant_w4a4/low_rank.h"

#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::formats::svdquant_w4a4 {
namespace {

/// Columns whose sums stay in the first-level cache.
constexpr int64_t kBlock = 1024;

}  // namespace

template <>
void low_rank_row<kernel::kIsa>(const float* up, const float* down, int64_t stride, int64_t rank, int64_t cols,
                                float* sum) {
  for (int64_t first = 0; first < cols; first += kBlock) {
    const int64_t count = cols - first < kBlock ? cols - first : kBlock;
    float* __restrict to = sum + first;
    for (int64_t c = 0; c < count; ++c) to[c] = 0;
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = up[r];
      const float* __restrict from = down + r * stride + first;
      for (int64_t c = 0; c < count; ++c) to[c] += factor * from[c];
    }
  }
}

}  // namespace mezzotint::formats::svdquant_w4a4
