#pragma once
#include "mezzotint/kernel/gemm/int8_finish.h"
#include "mezzotint/kernel/gemm/unroll.h"

// Included by ISA files: int8 products on vectors of dot products. A trait V of the level says what a vector is:
//
//   Int, Float       vectors of kLanes int32 or float32
//   kGroup           codes of the depth that one int32 lane multiplies at once
//   kTileRows        rows of y in registers; kVectors vectors of columns
//   kOffset          what load_columns adds to the codes of b (128 where they must be unsigned)
//   load_columns(p)  kLanes groups of b that lie together in the depth, offset; load_rows(p): of a, not offset
//   interleave(p, s) the groups of kLanes columns whose depth steps are s bytes apart, offset
//   group(p, n)      n <= kGroup codes of a as one int32, the rest 0
//   dot(acc, b, a)   acc + the sum of b * a over each lane's group
//                    (in assembly: g++ 12 gives the intrinsic's result and the sum that a loop carries two registers
//                    where float arithmetic follows, and then spills them all)
#define MEZZOTINT_INLINE [[gnu::always_inline]] static inline

namespace mezzotint::kernel {
namespace {

template <class V>
struct DotProduct {
  using Int = typename V::Int;
  using Float = typename V::Float;
  static constexpr int kLanes = V::kLanes;
  static constexpr int kVectors = V::kVectors;
  static constexpr int kColumns = kLanes * kVectors;  // of a sub-panel
  static constexpr int kBlockGroups = kInt8Block / V::kGroup;
  static constexpr int64_t kRowBytes = 8 + 4 * kBlockGroups;
  static constexpr int64_t kColumnBytes = 4 * kBlockGroups;

  static int64_t groups_of(int64_t codes) { return (codes + V::kGroup - 1) / V::kGroup; }

  /// Rows of the tile that begins where `left` rows are left: as many as fit of kTileRows, 8, 4, 2, 1.
  static int tile_rows(int64_t left) {
    if (left >= V::kTileRows) return V::kTileRows;
    if (V::kTileRows > 8 && left >= 8) return 8;
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
  }

  static int32_t sum_of(const int8_t* codes, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += codes[i];
    return sum;
  }

  // --- packing ------------------------------------------------------------------------------------------------------
  // A tile of R rows is a sequence of blocks of 128 codes: R int32 with which the sums begin (they take the offset of b
  // back; without block scales the first block has the whole depth's), R float32 scales, then for every group R int32.

  static void pack_rows(const Int8Job& job, int64_t row0, int64_t rows, std::byte* to) {
    const int64_t blocks = job.depth_blocks();
    for (int64_t row = 0; row < rows;) {
      const int r = tile_rows(rows - row);
      for (int64_t b = 0; b < blocks; ++b)
        pack_tile_block(job, row0 + row, r, b, to + row * blocks * kRowBytes + b * r * kRowBytes);
      row += r;
    }
  }

  static void pack_tile_block(const Int8Job& job, int64_t row0, int r, int64_t block, std::byte* to) {
    const int64_t from = block * kInt8Block;
    const int64_t n = smaller(kInt8Block, job.depth - from);
    auto* begin = reinterpret_cast<int32_t*>(to);
    auto* scale = reinterpret_cast<float*>(to) + r;
    auto* data = reinterpret_cast<int32_t*>(to) + 2 * r;
    for (int i = 0; i < r; ++i) {
      const int8_t* codes = job.a.codes + (row0 + i) * job.a.stride + from;
      begin[i] = 0;
      scale[i] = 0;
      if (job.block_scaled()) {
        begin[i] = -V::kOffset * sum_of(codes, n);
        scale[i] = job.a.scales[(row0 + i) * job.a.scales_stride + block];
      } else if (V::kOffset != 0 && from % kInt8Stretch == 0) {
        begin[i] = -V::kOffset * sum_of(codes, smaller(kInt8Stretch, job.depth - from));
      }
      const int64_t whole = n / V::kGroup;
      for (int64_t g = 0; g < whole; ++g) data[g * r + i] = V::group(codes + g * V::kGroup, V::kGroup);
      if (whole * V::kGroup < n) data[whole * r + i] = V::group(codes + whole * V::kGroup, n - whole * V::kGroup);
    }
  }

  /// Columns [col0, col0 + kColumns) of b over the depth [from, from + depth): for every group kColumns int32. Columns
  /// beyond the last hold zeros or repeat what lies in range; nothing reads their sums.
  static void pack_columns(const Int8Job& job, int64_t col0, int64_t from, int64_t depth, std::byte* to) {
    auto* out = reinterpret_cast<int32_t*>(to);
    for (int v = 0; v < kVectors; ++v) {
      const int64_t col = col0 + v * kLanes;
      const int64_t cols = smaller<int64_t>(kLanes, job.cols - col);
      const int8_t* b = job.b + col * job.b_col + from * job.b_depth;
      int32_t* at = out + v * kLanes;
      int64_t done = 0;  // groups
      if (cols == kLanes && job.b_depth == 1) {
        done = depth / (kLanes * V::kGroup) * kLanes;
        for (int64_t g = 0; g < done; g += kLanes) {
          Int rows[kLanes];
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) rows[i] = V::load_columns(b + i * job.b_col + g * V::kGroup);
          V::transpose(rows);
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) V::store(at + (g + i) * kColumns, rows[i]);
        }
      } else if (cols == kLanes && job.b_col == 1) {
        done = depth / V::kGroup;
        for (int64_t g = 0; g < done; ++g)
          V::store(at + g * kColumns, V::interleave(b + g * V::kGroup * job.b_depth, job.b_depth));
      }
      for (int64_t g = done; g < groups_of(depth); ++g)
        for (int64_t i = 0; i < kLanes; ++i)
          at[g * kColumns + i] = i < cols ? column_group(b + i * job.b_col + g * V::kGroup * job.b_depth, job.b_depth,
                                                         smaller<int64_t>(V::kGroup, depth - g * V::kGroup))
                                          : 0;
    }
  }
  static int32_t column_group(const int8_t* p, int64_t step, int64_t n) {
    int8_t codes[V::kGroup] = {};
    for (int64_t i = 0; i < n; ++i) codes[i] = p[i * step];
    const int32_t offset = V::kOffset != 0 ? static_cast<int32_t>(0x80808080u) : 0;
    return V::group(codes, V::kGroup) ^ offset;
  }

  // --- a tile -------------------------------------------------------------------------------------------------------

  struct Tile {
    const std::byte* rows;     ///< packed, at the block where the chunk begins
    const std::byte* columns;  ///< packed sub-panel of the chunk
    int64_t depth;             ///< of the chunk
    bool first;                ///< whether the sums begin here
    void* sums;                ///< [R][stride] int32 or, with block scales, float32
    int64_t stride;
    const float* scales;  ///< of b, one per block
    int64_t scale_step;
  };

  /// acc += the products of the groups, of which there is one at least; acc stays in registers.
  template <int R>
  [[gnu::always_inline]] static inline void multiply(Int (&acc)[R][kVectors], const int32_t* a, const int32_t* b,
                                                     int64_t groups) {
    const int32_t* end = b + groups * kColumns;
    do {
      Int columns[kVectors];
      unrolled<kVectors>([&]<int J>() MEZZOTINT_UNROLLED { columns[J] = V::load(b + J * kLanes); });
      unrolled<R>([&]<int I>() MEZZOTINT_UNROLLED {
        const Int row = V::broadcast(a[I]);
        unrolled<kVectors>([&]<int J>() MEZZOTINT_UNROLLED { acc[I][J] = V::dot(acc[I][J], columns[J], row); });
      });
      a += R;
      b += kColumns;
    } while (b != end);
  }

  template <int R>
  [[gnu::noinline, gnu::noclone]] static void plain_tile(const Tile& t) {
    auto* sums = static_cast<int32_t*>(t.sums);
    const auto* a = reinterpret_cast<const int32_t*>(t.rows);
    const auto* b = reinterpret_cast<const int32_t*>(t.columns);
    Int acc[R][kVectors];
    unrolled<R * kVectors>([&]<int I>() MEZZOTINT_UNROLLED {
      constexpr int i = I / kVectors, v = I % kVectors;
      acc[i][v] = t.first ? V::broadcast(a[i]) : V::load(sums + i * t.stride + v * kLanes);
    });
    for (int64_t left = t.depth; left > 0; left -= kInt8Block) {
      multiply<R>(acc, a + 2 * R, b, groups_of(smaller(left, kInt8Block)));
      a += R * kRowBytes / 4;
      b += kColumns * kBlockGroups;
    }
    unrolled<R * kVectors>([&]<int I>() MEZZOTINT_UNROLLED {
      constexpr int i = I / kVectors, v = I % kVectors;
      V::store(sums + i * t.stride + v * kLanes, acc[i][v]);
    });
  }

  /// Integer sums of one block at a time, folded into float32 sums in memory.
  template <int R>
  [[gnu::noinline, gnu::noclone]] static void block_tile(const Tile& t) {
    auto* sums = static_cast<float*>(t.sums);
    const auto* a = reinterpret_cast<const int32_t*>(t.rows);
    const auto* b = reinterpret_cast<const int32_t*>(t.columns);
    const float* scales = t.scales;
    const int64_t scale_step = t.scale_step;
    if (t.first)
      unrolled<R * kVectors>([&]<int I>() MEZZOTINT_UNROLLED {
        V::store_float(sums + I / kVectors * kInt8Panel + I % kVectors * kLanes, V::zero());
      });
    for (int64_t left = t.depth; left > 0; left -= kInt8Block) {
      Int acc[R][kVectors];
      unrolled<R * kVectors>(
          [&]<int I>() MEZZOTINT_UNROLLED { acc[I / kVectors][I % kVectors] = V::broadcast(a[I / kVectors]); });
      multiply<R>(acc, a + 2 * R, b, groups_of(smaller(left, kInt8Block)));
      const float* a_scale = reinterpret_cast<const float*>(a) + R;
      unrolled<R>([&]<int I>() MEZZOTINT_UNROLLED {
        const Float scale = V::broadcast_float(a_scale[I] * *scales);
        unrolled<kVectors>([&]<int J>() MEZZOTINT_UNROLLED {
          float* at = sums + I * kInt8Panel + J * kLanes;
          V::store_float(at, V::multiply_add(V::to_float(acc[I][J]), scale, V::load_float(at)));
        });
      });
      a += R * kRowBytes / 4;
      b += kColumns * kBlockGroups;
      scales += scale_step;
      asm volatile("" : : : "memory");  // or sums are held in registers that there are none of, and on the stack too
    }
  }

  template <int R>
  static void tile(const Tile& t, bool block_scaled) {
    if (block_scaled) return block_tile<R>(t);
    plain_tile<R>(t);
  }
  static void any_tile(int r, const Tile& t, bool block_scaled) {
    if (r == V::kTileRows) return tile<V::kTileRows>(t, block_scaled);
    if constexpr (V::kTileRows > 8)
      if (r == 8) return tile<8>(t, block_scaled);
    if (r == 4) return tile<4>(t, block_scaled);
    if (r == 2) return tile<2>(t, block_scaled);
    tile<1>(t, block_scaled);
  }

  // --- a part -------------------------------------------------------------------------------------------------------

  static void panel(const Int8Job& job, const Int8Part& part) {
    const int64_t cols = part_columns(job, part.col0);
    const int64_t blocks = job.depth_blocks();
    const int64_t subs = (cols + kColumns - 1) / kColumns;
    const int64_t chunk_most = job.depth < V::kDepth ? blocks * kInt8Block : V::kDepth;
    std::byte* columns = part.scratch;
    auto* sums = reinterpret_cast<float*>(part.scratch + chunk_most / kInt8Block * kColumnBytes * kInt8Panel);
    float* total = job.depth > kInt8Stretch ? sums + part.rows * kInt8Panel : nullptr;

    for (int64_t from = 0; from < job.depth;) {
      const int64_t stretch_end = smaller((from / kInt8Stretch + 1) * kInt8Stretch, job.depth);
      const int64_t depth = smaller(even_chunk(stretch_end - from), stretch_end - from);
      const int64_t sub_bytes = (depth + kInt8Block - 1) / kInt8Block * kColumnBytes * kColumns;
      for (int64_t s = 0; s < subs; ++s)
        pack_columns(job, part.col0 + s * kColumns, from, depth, columns + s * sub_bytes);
      const bool whole = depth == job.depth;  // then sums of a tile are used at once, and stay in the nearest cache
      for (int64_t row = 0; row < part.rows;) {
        const int r = tile_rows(part.rows - row);
        Tile t;
        t.rows = part.packed_rows + row * blocks * kRowBytes + from / kInt8Block * r * kRowBytes;
        t.depth = depth;
        t.first = job.block_scaled() ? from == 0 : from % kInt8Stretch == 0;
        t.scale_step = job.b_scale_depth;
        t.scales = job.block_scaled()
                       ? job.b_scales + part.col0 / kInt8Block * job.b_scale_col + from / kInt8Block * job.b_scale_depth
                       : nullptr;
        float* tile_sums = whole ? sums : sums + row * kInt8Panel;
        for (int64_t s = 0; s < subs; ++s) {
          t.columns = columns + s * sub_bytes;
          t.sums = tile_sums + s * kColumns;
          t.stride = kInt8Panel;
          any_tile(r, t, job.block_scaled());
        }
        if (from + depth == stretch_end)
          for (int i = 0; i < r; ++i)
            end_stretch(job, part, row + i, tile_sums + i * kInt8Panel, stretch_end,
                        total != nullptr ? total + (row + i) * kInt8Panel : nullptr);
        row += r;
      }
      from += depth;
    }
  }

  /// Chunks of a stretch: equal up to a block, none above kDepth.
  static int64_t even_chunk(int64_t left) {
    const int64_t chunks = (left + V::kDepth - 1) / V::kDepth;
    return ((left + chunks - 1) / chunks + kInt8Block - 1) / kInt8Block * kInt8Block;
  }

  static void end_stretch(const Int8Job& job, const Int8Part& part, int64_t row, float* sums, int64_t end,
                          float* total) {
    const bool last = end == job.depth;
    if (!job.block_scaled()) {
      float* to = total != nullptr ? total : sums;
      add_stretch(reinterpret_cast<const Dword*>(sums), end <= kInt8Stretch, to);
      sums = to;
    }
    if (last) finish_part_row(job, part.row0 + row, part.col0, sums);
  }
};

}  // namespace
}  // namespace mezzotint::kernel
