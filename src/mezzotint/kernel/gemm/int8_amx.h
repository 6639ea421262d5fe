#pragma once
// Included by the amx level and by the test that emulates its tiles: int8 products on 2 x 2 tiles of 16 x 16 sums.
#include "mezzotint/kernel/gemm/amx_tiles.h"
#include "mezzotint/kernel/gemm/int8_dot.h"

namespace mezzotint::kernel {
namespace {

/// Tiles is HardwareTiles or its emulation; V a trait of int8_dot.h with 16 lanes, kVectors 1 and no offset, which
/// packs the columns: 16 of them are a sub-panel, whose groups of 4 codes are the rows of a tile of b.
template <class Tiles, class V>
struct AmxProduct {
  using Packing = DotProduct<V>;
  static constexpr int kRows = 2 * kTileDim;                        // of y that two tiles of a hold
  static constexpr int64_t kBlockBytes = kRows * (4 + kInt8Block);  // packed: kRows scales, then tiles
  static constexpr int kSteps = kInt8Block / 64;                    // tiles along a block
  /// Codes of the depth packed at a time: with scales a panel's columns then stay in the L1 cache while all rows pass,
  /// without them fewer passes over the sums are worth more.
  static constexpr int64_t kDepth = 512, kScaledDepth = 256;

  /// Kept in flight while the tiles of the next block multiply: the sums of a block, and where they belong.
  struct Pending {
    const int32_t* sums = nullptr;  ///< [kRows][2 * kTileDim]
    const float* a_scales = nullptr;
    float b_scale = 0;
    float* to = nullptr;  ///< rows kInt8Panel apart
  };

  // --- packing ------------------------------------------------------------------------------------------------------
  // A block of 32 rows: 32 float32 scales; for each half of the rows, for each 64 codes of the depth one tile.

  static void pack_rows(const Int8Job& job, int64_t row0, int64_t rows, std::byte* to) {
    for (int64_t row = 0; row < rows; row += kRows)
      for (int64_t b = 0; b < job.depth_blocks(); ++b, to += kBlockBytes) {
        const int64_t from = b * kInt8Block, n = smaller(kInt8Block, job.depth - from);
        memset(to, 0, kBlockBytes);
        auto* scales = reinterpret_cast<float*>(to);
        for (int64_t i = 0; i < smaller<int64_t>(kRows, rows - row); ++i) {
          const int64_t at = row0 + row + i;
          scales[i] = job.block_scaled() ? job.a.scales[at * job.a.scales_stride + b] : 0.0f;
          std::byte* tile = to + 4 * kRows + i / kTileDim * kSteps * kTileBytes + i % kTileDim * 64;
          for (int64_t k = 0; k < n; k += 64)
            memcpy(tile + k / 64 * kTileBytes, job.a.codes + at * job.a.stride + from + k,
                   static_cast<size_t>(smaller<int64_t>(64, n - k)));
        }
      }
  }

  // --- multiplying --------------------------------------------------------------------------------------------------
  // Tiles 0 to 3 are the sums [half of rows][half of columns], 4 and 5 halves of a, 6 and 7 halves of b.

  /// Rows [row, row + count) of acc = fma(sum, a_scale * b_scale, acc).
  [[gnu::always_inline]] static inline void fold(const Pending& p, int row, int count) {
    for (int i = row; i < row + count; ++i) {
      const float scale = p.a_scales[i] * p.b_scale;
      const int32_t* __restrict sums = p.sums + i * 2 * kTileDim;
      float* __restrict to = p.to + i * kInt8Panel;
      for (int j = 0; j < 2 * kTileDim; ++j) to[j] = __builtin_fmaf(static_cast<float>(sums[j]), scale, to[j]);
    }
  }
  static void finish_fold(Pending& p) {
    if (p.sums != nullptr) fold(p, 0, kRows);
    p.sums = nullptr;
  }

  /// One step of 64 codes; after each of its four products `share` rows of what is pending.
  template <int kShare>
  [[gnu::always_inline]] static inline void step(Tiles& tiles, const std::byte* a, const std::byte* b, int64_t b_half,
                                                 const Pending& pending, int row) {
    const auto some = [&](int quarter) MEZZOTINT_UNROLLED {
      if constexpr (kShare > 0) fold(pending, row + quarter * kShare, kShare);
    };
    tiles.template load<4>(a, 64);
    tiles.template load<6>(b, 64);
    tiles.template dot_int8<0, 4, 6>();
    some(0);
    tiles.template load<7>(b + b_half, 64);
    tiles.template dot_int8<1, 4, 7>();
    some(1);
    tiles.template load<5>(a + kSteps * kTileBytes, 64);
    tiles.template dot_int8<2, 5, 6>();
    some(2);
    tiles.template dot_int8<3, 5, 7>();
    some(3);
  }
  static void store_sums(Tiles& tiles, int32_t* to, int64_t stride) {
    tiles.template store<0>(to, stride * 4);
    tiles.template store<1>(to + kTileDim, stride * 4);
    tiles.template store<2>(to + kTileDim * stride, stride * 4);
    tiles.template store<3>(to + kTileDim * stride + kTileDim, stride * 4);
  }
  static void zero_sums(Tiles& tiles) {
    tiles.template zero<0>();
    tiles.template zero<1>();
    tiles.template zero<2>();
    tiles.template zero<3>();
  }

  struct Pair {
    const std::byte* rows;     ///< packed, at the chunk's first block
    const std::byte* columns;  ///< packed, two sub-panels
    int64_t half;              ///< bytes from one sub-panel to the next
    int64_t depth;             ///< of the chunk
    bool first;                ///< whether the sums begin here
    float* sums;               ///< [kRows][kInt8Panel] float32 with block scales, else int32
    const float* scales;       ///< of b, one per block
    int64_t scale_step;
  };

  [[gnu::noinline]] static void plain_pair(Tiles& tiles, const Pair& p) {
    auto* sums = reinterpret_cast<int32_t*>(p.sums);
    if (p.first) {
      zero_sums(tiles);
    } else {
      constexpr int64_t kStride = kInt8Panel * 4;
      tiles.template load<0>(sums, kStride);
      tiles.template load<1>(sums + kTileDim, kStride);
      tiles.template load<2>(sums + kTileDim * kInt8Panel, kStride);
      tiles.template load<3>(sums + kTileDim * kInt8Panel + kTileDim, kStride);
    }
    for (int64_t k = 0; k < p.depth; k += 64) {
      const std::byte* a = p.rows + k / kInt8Block * kBlockBytes + 4 * kRows + k / 64 % kSteps * kTileBytes;
      step<0>(tiles, a, p.columns + k / 64 * kTileBytes, p.half, {}, 0);
    }
    store_sums(tiles, sums, kInt8Panel);
  }

  /// The sums of a block leave the tiles through `buffer`, two of them in turn, and are scaled and added while the next
  /// block's products run.
  [[gnu::noinline]] static void block_pair(Tiles& tiles, const Pair& p, int32_t (*buffer)[kRows * 2 * kTileDim],
                                           int& turn, Pending& pending) {
    constexpr int kShare = kRows / (4 * kSteps);
    for (int64_t k = 0; k < p.depth; k += kInt8Block) {
      const std::byte* block = p.rows + k / kInt8Block * kBlockBytes;
      const std::byte* a = block + 4 * kRows;
      const std::byte* b = p.columns + k / 64 * kTileBytes;
      zero_sums(tiles);
      if (pending.sums == nullptr || p.depth - k <= 64) {  // the first block of all, or half a block
        finish_fold(pending);
        for (int64_t s = 0; s < kSteps && k + s * 64 < p.depth; ++s)
          step<0>(tiles, a + s * kTileBytes, b + s * kTileBytes, p.half, pending, 0);
      } else {
        step<kShare>(tiles, a, b, p.half, pending, 0);
        step<kShare>(tiles, a + kTileBytes, b + kTileBytes, p.half, pending, 4 * kShare);
      }
      store_sums(tiles, buffer[turn], 2 * kTileDim);
      pending = {buffer[turn], reinterpret_cast<const float*>(block), p.scales[k / kInt8Block * p.scale_step], p.sums};
      turn ^= 1;
    }
  }

  // --- a part -------------------------------------------------------------------------------------------------------

  static void panel(const Int8Job& job, const Int8Part& part) {
    Tiles tiles;
    tiles.configure();
    panel_with(tiles, job, part);
    tiles.release();
  }

  static void panel_with(Tiles& tiles, const Int8Job& job, const Int8Part& part) {
    const int64_t blocks = job.depth_blocks();
    const int64_t pairs = (part_columns(job, part.col0) + 2 * kTileDim - 1) / (2 * kTileDim);
    const int64_t packed_rows = (part.rows + kRows - 1) / kRows * kRows;
    std::byte* columns = part.scratch;
    auto* sums = reinterpret_cast<float*>(columns + smaller(blocks * kInt8Block, kDepth) * kInt8Panel);
    float* total = job.depth > kInt8Stretch ? sums + packed_rows * kInt8Panel : nullptr;
    alignas(64) int32_t buffer[2][kRows * 2 * kTileDim];
    int turn = 0;
    Pending pending;

    for (int64_t from = 0; from < job.depth;) {
      const int64_t stretch_end = smaller((from / kInt8Stretch + 1) * kInt8Stretch, job.depth);
      const int64_t depth = smaller(job.block_scaled() ? kScaledDepth : kDepth, stretch_end - from);
      const int64_t half = (depth + kInt8Block - 1) / kInt8Block * kInt8Block * kTileDim;
      for (int64_t s = 0; s < 2 * pairs; ++s)
        Packing::pack_columns(job, part.col0 + s * kTileDim, from, depth, columns + s * half);
      for (int64_t row = 0; row < part.rows; row += kRows) {
        Pair p;
        p.rows = part.packed_rows + (row / kRows * blocks + from / kInt8Block) * kBlockBytes;
        p.half = half;
        p.depth = depth;
        p.first = job.block_scaled() ? from == 0 : from % kInt8Stretch == 0;
        p.scale_step = job.b_scale_depth;
        p.scales = job.block_scaled()
                       ? job.b_scales + part.col0 / kInt8Block * job.b_scale_col + from / kInt8Block * job.b_scale_depth
                       : nullptr;
        float* tile_sums = sums + row * kInt8Panel;
        if (job.block_scaled() && p.first) memset(tile_sums, 0, kRows * kInt8Panel * 4);
        for (int64_t s = 0; s < pairs; ++s) {
          p.columns = columns + 2 * s * half;
          p.sums = tile_sums + s * 2 * kTileDim;
          if (job.block_scaled()) {
            block_pair(tiles, p, buffer, turn, pending);
          } else {
            plain_pair(tiles, p);
          }
        }
        if (from + depth < stretch_end) continue;
        if (stretch_end == job.depth) finish_fold(pending);
        for (int64_t i = row; i < smaller(row + kRows, part.rows); ++i)
          Packing::end_stretch(job, part, i, sums + i * kInt8Panel, stretch_end,
                               total != nullptr ? total + i * kInt8Panel : nullptr);
      }
      finish_fold(pending);  // the next chunk's packing comes between
      from += depth;
    }
  }
};

}  // namespace
}  // namespace mezzotint::kernel
