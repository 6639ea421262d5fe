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
  static constexpr int kColumns = 4;                    // columns of y at once, without block scales

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

  /// sums[c][i] = integer sums of kColumns columns and R rows over n codes.
  template <int R>
  [[gnu::noinline]] static void sums(const Int8Job& job, int64_t row0, int64_t col0, int64_t from, int64_t n,
                                     int32_t* out) {
    const int8_t* b = job.b + col0 * job.b_col + from;
    const int8_t* a = job.a.codes + row0 * job.a.stride + from;
    Int acc[kColumns][R];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c)
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) acc[c][i] = V::broadcast(0);
    int64_t k = 0;
    for (; k + kStep <= n; k += kStep) {
      Int rows[R];
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) rows[i] = V::load_rows(a + i * job.a.stride + k);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        const Int column = V::load_columns(b + c * job.b_col + k);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) acc[c][i] = V::dot(acc[c][i], column, rows[i]);
      }
    }
    for (int c = 0; c < kColumns; ++c)
      for (int i = 0; i < R; ++i) {
        if (k < n) acc[c][i] = rest(acc[c][i], b + c * job.b_col + k, a + i * job.a.stride + k, n - k);
        out[c * R + i] = V::sum(acc[c][i]);
      }
  }

  static void one_sum(const Int8Job& job, int64_t row, int64_t col, int64_t from, int64_t n, int32_t* out) {
    const int8_t* b = job.b + col * job.b_col + from;
    const int8_t* a = job.a.codes + row * job.a.stride + from;
    Int acc = V::broadcast(0);
    int64_t k = 0;
    for (; k + kStep <= n; k += kStep) acc = V::dot(acc, V::load_columns(b + k), V::load_rows(a + k));
    if (k < n) acc = rest(acc, b + k, a + k, n - k);
    *out = V::sum(acc);
  }

  template <int R>
  static void plain_rows(const Int8Job& job, const Int8Part& part, int64_t row0, float* values) {
    const int64_t cols = part_columns(job, part.col0);
    for (int64_t from = 0; from < job.depth; from += kInt8Stretch) {
      const int64_t n = smaller(kInt8Stretch, job.depth - from);
      int32_t begins[R];
      for (int i = 0; i < R; ++i) begins[i] = begin(job.a.codes + (row0 + i) * job.a.stride + from, n);
      const auto put = [&](int i, int64_t j, int32_t sum) {
        float& value = values[i * kInt8Panel + j];
        const float exact = static_cast<float>(sum + begins[i]);
        value = from == 0 ? exact : value + exact;
      };
      int64_t j = 0;
      for (; j + kColumns <= cols; j += kColumns) {
        int32_t out[kColumns * R];
        sums<R>(job, row0, part.col0 + j, from, n, out);
        for (int c = 0; c < kColumns; ++c)
          for (int i = 0; i < R; ++i) put(i, j + c, out[c * R + i]);
      }
      for (; j < cols; ++j)
        for (int i = 0; i < R; ++i) {
          int32_t out;
          one_sum(job, row0 + i, part.col0 + j, from, n, &out);
          put(i, j, out);
        }
    }
  }

  // --- with block scales --------------------------------------------------------------------------------------------

  /// dots[b] = the integer sum over block b, begun with begins[b], for one row and column.
  [[gnu::noinline]] static void block_sums(const int8_t* b, const int8_t* a, int64_t depth, const int32_t* begins,
                                           int32_t* dots) {
    const int64_t whole = depth / kInt8Block;
    int64_t at = 0;
    for (; at + kLanes <= whole; at += kLanes) {
      Int v[kLanes];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) {
        const int64_t k = (at + j) * kInt8Block;
        Int acc = V::broadcast(0);
#pragma GCC unroll 8
        for (int s = 0; s < kSteps; ++s)
          acc = V::dot(acc, V::load_columns(b + k + s * kStep), V::load_rows(a + k + s * kStep));
        v[j] = acc;
      }
      V::transpose(v);
      Int sum = V::load(begins + at);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) sum = V::add(sum, v[j]);
      V::store(dots + at, sum);
    }
    for (; at * kInt8Block < depth; ++at) {
      const int64_t end = smaller((at + 1) * kInt8Block, depth);
      Int acc = V::broadcast(0);
      int64_t k = at * kInt8Block;
      for (; k + kStep <= end; k += kStep) acc = V::dot(acc, V::load_columns(b + k), V::load_rows(a + k));
      if (k < end) acc = rest(acc, b + k, a + k, end - k);
      dots[at] = begins[at] + V::sum(acc);
    }
  }

  /// values[j] = the fma chain over the blocks for kLanes columns whose dots lie `step` apart.
  [[gnu::noinline]] static void fold(const int32_t* dots, int64_t step, const float* scales, int64_t blocks,
                                     float* values) {
    Float acc = V::zero();
    int64_t at = 0;
    for (; at + kLanes <= blocks; at += kLanes) {
      Int v[kLanes];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) v[j] = V::load(dots + j * step + at);
      V::transpose(v);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j)
        acc = V::multiply_add(V::to_float(v[j]), V::broadcast_float(scales[at + j]), acc);
    }
    for (; at < blocks; ++at) {
      int32_t column[kLanes];
      for (int j = 0; j < kLanes; ++j) column[j] = dots[j * step + at];
      acc = V::multiply_add(V::to_float(V::load(column)), V::broadcast_float(scales[at]), acc);
    }
    V::store_float(values, acc);
  }

  /// Scratch: dots[rows][kLanes][blocks], then begins[rows][blocks], then scales[rows][blocks].
  static void block_rows(const Int8Job& job, const Int8Part& part, std::byte* scratch, float* values) {
    const int64_t cols = part_columns(job, part.col0);
    const int64_t blocks = job.depth_blocks();
    auto* dots = reinterpret_cast<int32_t*>(scratch);
    int32_t* begins = dots + part.rows * kLanes * blocks;
    auto* scales = reinterpret_cast<float*>(begins + part.rows * blocks);
    const float* b_scales = job.b_scales + part.col0 / kInt8Block * job.b_scale_col;
    for (int64_t i = 0; i < part.rows; ++i)
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t row = part.row0 + i, from = b * kInt8Block;
        begins[i * blocks + b] = begin(job.a.codes + row * job.a.stride + from, smaller(kInt8Block, job.depth - from));
        scales[i * blocks + b] = job.a.scales[row * job.a.scales_stride + b] * b_scales[b * job.b_scale_depth];
      }
    for (int64_t j = 0; j < cols; j += kLanes) {
      const int64_t some = smaller<int64_t>(kLanes, cols - j);
      for (int64_t c = 0; c < kLanes; ++c)  // a column beyond the last repeats it; its values are not stored
        for (int64_t i = 0; i < part.rows; ++i)
          block_sums(job.b + (part.col0 + j + smaller(c, some - 1)) * job.b_col,
                     job.a.codes + (part.row0 + i) * job.a.stride, job.depth, begins + i * blocks,
                     dots + (i * kLanes + c) * blocks);
      for (int64_t i = 0; i < part.rows; ++i)
        fold(dots + i * kLanes * blocks, blocks, scales + i * blocks, blocks, values + i * kInt8Panel + j);
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
