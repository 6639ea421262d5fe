#pragma once
// Included by ISA files: few rows of y from the codes of b as they lie, every byte read once and in order.
#include "mezzotint/kernel/gemm/int8_dot.h"

namespace mezzotint::kernel {
namespace {

template <class V>
struct StoredProduct {
  using Int = typename V::Int;
  using Float = typename V::Float;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kStep = kLanes * V::kGroup;  // codes of a vector
  static constexpr int kSteps = kInt8Block / kStep;     // vectors of a block

  /// A page ahead: hardware prefetchers stop at its end. Rows follow each other, so this is right across their ends
  /// too; beyond the matrix it does nothing.
  MEZZOTINT_INLINE void fetch(const int8_t* p) {
    constexpr uintptr_t kAhead = 4096;
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(p) + kAhead), 0, 3);
  }

  /// What the sum of n codes begins with, to take the offset of b back.
  static int32_t begin(const int8_t* a, int64_t n) {
    return V::kOffset == 0 ? 0 : -V::kOffset * DotProduct<V>::sum_of(a, n);
  }

  /// Fewer than kStep codes, read through a buffer of zeros.
  static Int rest(Int acc, const int8_t* b, const int8_t* a, int64_t n) {
    alignas(64) int8_t b_codes[kStep] = {}, a_codes[kStep] = {};
    __builtin_memcpy(b_codes, b, static_cast<size_t>(n));
    __builtin_memcpy(a_codes, a, static_cast<size_t>(n));
    return V::dot(acc, V::load_columns(b_codes), V::load_rows(a_codes));
  }

  /// out[i] = integer sums of one column and R rows over n codes. One column after the other: memory gives most where
  /// it is read in order.
  template <int R>
  [[gnu::noinline]] static void sums(const int8_t* b, const int8_t* a, int64_t a_stride, int64_t n, int32_t* out) {
    constexpr int kWays = R == 1 ? 4 : 2;  // chains of sums of a row, so that none waits for itself
    Int acc[R][kWays];
    unrolled<R * kWays>([&]<int I>() MEZZOTINT_UNROLLED { acc[I / kWays][I % kWays] = V::broadcast(0); });
    int64_t k = 0;
    for (; k + kWays * kStep <= n; k += kWays * kStep)
      unrolled<kWays>([&]<int S>() MEZZOTINT_UNROLLED {
        fetch(b + k + S * kStep);
        const Int column = V::load_columns(b + k + S * kStep);
        unrolled<R>([&]<int I>() MEZZOTINT_UNROLLED {
          acc[I][S] = V::dot(acc[I][S], column, V::load_rows(a + I * a_stride + k + S * kStep));
        });
      });
    for (int i = 0; i < R; ++i) {
      Int sum = acc[i][0];
      for (int s = 1; s < kWays; ++s) sum = V::add(sum, acc[i][s]);
      int64_t rest_at = k;
      for (; rest_at + kStep <= n; rest_at += kStep)
        sum = V::dot(sum, V::load_columns(b + rest_at), V::load_rows(a + i * a_stride + rest_at));
      if (rest_at < n) sum = rest(sum, b + rest_at, a + i * a_stride + rest_at, n - rest_at);
      out[i] = V::sum(sum);
    }
  }

  template <int R>
  static void plain_rows(const Int8Job& job, const Int8Part& part, int64_t row0, float* values) {
    const int64_t cols = part_columns(job, part.col0);
    for (int64_t from = 0; from < job.depth; from += kInt8Stretch) {
      const int64_t n = smaller(kInt8Stretch, job.depth - from);
      const int8_t* a = job.a.codes + row0 * job.a.stride + from;
      int32_t begins[R];
      for (int i = 0; i < R; ++i) begins[i] = begin(a + i * job.a.stride, n);
      for (int64_t j = 0; j < cols; ++j) {
        int32_t out[R];
        sums<R>(job.b + (part.col0 + j) * job.b_col + from, a, job.a.stride, n, out);
        for (int i = 0; i < R; ++i) {
          float& value = values[i * kInt8Panel + j];
          const float exact = static_cast<float>(out[i] + begins[i]);
          value = from == 0 ? exact : value + exact;
        }
      }
    }
  }

  // --- with block scales --------------------------------------------------------------------------------------------

  // Arrays with an element per block have room for whole vectors: `padded` elements.

  [[gnu::noinline]] static Int last_block(const int8_t* b, const int8_t* a, int64_t n) {
    Int acc = V::broadcast(0);
    int64_t k = 0;
    for (; k + kStep <= n; k += kStep) acc = V::dot(acc, V::load_columns(b + k), V::load_rows(a + k));
    return k < n ? rest(acc, b + k, a + k, n - k) : acc;
  }

  /// dots[b] = the integer sum over block b, begun with begins[b], for one row and column.
  [[gnu::noinline]] static void block_sums(const int8_t* b, const int8_t* a, int64_t depth, const int32_t* begins,
                                           int32_t* dots) {
    for (int64_t from = 0; from < depth; from += kLanes * kInt8Block) {
      Int v[kLanes];
      unrolled<kLanes>([&]<int J>() MEZZOTINT_UNROLLED {
        const int64_t k = from + J * kInt8Block;
        v[J] = V::broadcast(0);
        if (k + kInt8Block <= depth) {
          unrolled<kSteps>([&]<int S>() MEZZOTINT_UNROLLED {
            fetch(b + k + S * kStep);
            v[J] = V::dot(v[J], V::load_columns(b + k + S * kStep), V::load_rows(a + k + S * kStep));
          });
        } else if (k < depth) {
          v[J] = last_block(b + k, a + k, depth - k);
        }
      });
      const Int sum = V::add(V::load(begins + from / kInt8Block), V::sums(v));
      V::store(dots + from / kInt8Block, sum);
    }
  }

  /// values[j] = the fma chain over the blocks for kLanes columns whose dots lie `padded` apart.
  [[gnu::noinline]] static void fold(const int32_t* dots, int64_t padded, const float* scales, int64_t blocks,
                                     float* values) {
    Float acc = V::zero();
    for (int64_t at = 0; at < blocks; at += kLanes) {
      Int v[kLanes];
      unrolled<kLanes>([&]<int J>() MEZZOTINT_UNROLLED { v[J] = V::load(dots + J * padded + at); });
      V::transpose(v);
      unrolled<kLanes>([&]<int J>() MEZZOTINT_UNROLLED {
        if (at + J < blocks) acc = V::multiply_add(V::to_float(v[J]), V::broadcast_float(scales[at + J]), acc);
      });
    }
    V::store_float(values, acc);
  }

  /// Scratch: dots[rows][kLanes][padded], then begins[rows][padded], then scales[rows][padded].
  static void block_rows(const Int8Job& job, const Int8Part& part, std::byte* scratch, float* values) {
    const int64_t cols = part_columns(job, part.col0);
    const int64_t blocks = job.depth_blocks(), padded = (blocks + kLanes - 1) / kLanes * kLanes;
    auto* dots = reinterpret_cast<int32_t*>(scratch);
    int32_t* begins = dots + part.rows * kLanes * padded;
    auto* scales = reinterpret_cast<float*>(begins + part.rows * padded);
    const float* b_scales = job.b_scales + part.col0 / kInt8Block * job.b_scale_col;
    for (int64_t i = 0; i < part.rows; ++i)
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t row = part.row0 + i, from = b * kInt8Block;
        begins[i * padded + b] = begin(job.a.codes + row * job.a.stride + from, smaller(kInt8Block, job.depth - from));
        scales[i * padded + b] = job.a.scales[row * job.a.scales_stride + b] * b_scales[b * job.b_scale_depth];
      }
    for (int64_t j = 0; j < cols; j += kLanes) {
      const int64_t some = smaller<int64_t>(kLanes, cols - j);
      for (int64_t c = 0; c < kLanes; ++c)  // a column beyond the last repeats it; its values are not stored
        for (int64_t i = 0; i < part.rows; ++i)
          block_sums(job.b + (part.col0 + j + smaller(c, some - 1)) * job.b_col,
                     job.a.codes + (part.row0 + i) * job.a.stride, job.depth, begins + i * padded,
                     dots + (i * kLanes + c) * padded);
      for (int64_t i = 0; i < part.rows; ++i)
        fold(dots + i * kLanes * padded, padded, scales + i * padded, blocks, values + i * kInt8Panel + j);
    }
  }

  static void part(const Int8Job& job, const Int8Part& part) {
    auto* values = reinterpret_cast<float*>(part.scratch);
    std::byte* scratch = part.scratch + part.rows * kInt8Panel * 4;
    if (job.block_scaled()) {
      block_rows(job, part, scratch, values);
    } else {
      for (int64_t i = 0; i < part.rows;) {
        const int64_t left = part.rows - i;
        float* to = values + i * kInt8Panel;
        if (left >= 4) {
          plain_rows<4>(job, part, part.row0 + i, to);
        } else if (left >= 2) {
          plain_rows<2>(job, part, part.row0 + i, to);
        } else {
          plain_rows<1>(job, part, part.row0 + i, to);
        }
        i += left >= 4 ? 4 : left >= 2 ? 2 : 1;
      }
    }
    for (int64_t i = 0; i < part.rows; ++i) finish_part_row(job, part.row0 + i, part.col0, values + i * kInt8Panel);
  }
};

template <class V>
Int8Level dot_level() {
  using Product = DotProduct<V>;
  return {{V::kTileRows, Product::kRowBytes, Product::kColumnBytes, V::kDepth, V::kStoredRows},
          Product::pack_rows,
          Product::panel,
          StoredProduct<V>::part};
}

}  // namespace
}  // namespace mezzotint::kernel
