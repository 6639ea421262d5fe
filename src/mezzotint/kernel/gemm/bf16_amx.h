#pragma once
// Included by the amx level and by the test that emulates its tiles: bf16 products on 2 x 2 tiles of 16 x 16 sums.
#include "mezzotint/kernel/gemm/amx_tiles.h"
#include "mezzotint/kernel/gemm/float_kernels.h"

namespace mezzotint::kernel {
namespace {

/// FloatKernels::multiply with all 32 rows; Tiles is HardwareTiles or its emulation, configured. A panel's rows are
/// already what a tile of b holds: a pair of bf16 for each of 16 columns.
template <class Tiles>
struct AmxBf16 {
  static constexpr int kRows = 2 * kTileDim, kColumns = 2 * kTileDim, kGranule = 2 * kTileDim;

  /// Tiles 0 to 3 are the sums [half of rows][half of columns], 4 and 5 halves of a, 6 and 7 halves of the panel.
  static void multiply(Tiles& tiles, int64_t dwords, const void* a, const void* panel, float* c, int64_t c_stride,
                       const float* fold, bool accumulate) {
    if (accumulate && fold == nullptr) {
      tiles.template load<0>(c, 4 * c_stride);
      tiles.template load<1>(c + kTileDim, 4 * c_stride);
      tiles.template load<2>(c + kTileDim * c_stride, 4 * c_stride);
      tiles.template load<3>(c + kTileDim * c_stride + kTileDim, 4 * c_stride);
    } else {
      tiles.template zero<0>();
      tiles.template zero<1>();
      tiles.template zero<2>();
      tiles.template zero<3>();
    }
    const auto* rows = static_cast<const uint8_t*>(a);
    const auto* columns = static_cast<const uint8_t*>(panel);
    for (int64_t k = 0; k < dwords; k += kTileDim) {
      tiles.template load<4>(rows + 4 * k, kPackedRowBytes);
      tiles.template load<6>(columns + 4 * k * kColumns, 4 * kColumns);
      tiles.template dot_bf16<0, 4, 6>();
      tiles.template load<7>(columns + 4 * k * kColumns + 64, 4 * kColumns);
      tiles.template dot_bf16<1, 4, 7>();
      tiles.template load<5>(rows + kTileDim * kPackedRowBytes + 4 * k, kPackedRowBytes);
      tiles.template dot_bf16<2, 5, 6>();
      tiles.template dot_bf16<3, 5, 7>();
    }
    if (fold == nullptr) return store(tiles, c, c_stride);
    alignas(64) float sums[kRows * kColumns];
    store(tiles, sums, kColumns);
    for (int r = 0; r < kRows; ++r) {
      float* __restrict to = c + r * c_stride;
      for (int j = 0; j < kColumns; ++j) {
        const float scaled = sums[r * kColumns + j] * fold[j];
        to[j] = accumulate ? to[j] + scaled : scaled;
      }
    }
  }

 private:
  static void store(Tiles& tiles, float* to, int64_t stride) {
    tiles.template store<0>(to, 4 * stride);
    tiles.template store<1>(to + kTileDim, 4 * stride);
    tiles.template store<2>(to + kTileDim * stride, 4 * stride);
    tiles.template store<3>(to + kTileDim * stride + kTileDim, 4 * stride);
  }
};

}  // namespace
}  // namespace mezzotint::kernel
