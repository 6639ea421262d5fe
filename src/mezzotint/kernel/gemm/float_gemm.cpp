#include "mezzotint/kernel/gemm/float_gemm.h"

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>

#include "mezzotint/base/round_up.h"
#include "mezzotint/kernel/gemm/choice.h"
#include "mezzotint/kernel/gemm/float_kernels.h"
#include "mezzotint/kernel/gemm/gemm_threads.h"

namespace mezzotint::kernel {
namespace {

constexpr int64_t kColumnsAtOnce = 768;  // columns x kDepthBytes of panels stay in L2
constexpr int64_t kRowsAtOnce = 1024;    // rows x columns of float32 sums
constexpr int64_t kRowPadBytes = 64;     // rows of 1024 bytes would fall on few sets of the cache
constexpr int64_t kTransposeRows = 16;   // rows of a weight decoded before they are packed
constexpr int64_t kFewRowsColumns = 64;  // columns of a task of few rows

/// Whether scales of f32 are constant within the steps of the reduction, so that sums can be scaled by them.
bool can_fold(const FloatGemm& p) {
  const BlockScales& s = p.w.scales;
  if (s.code != ScaleCode::f32) return true;
  const int64_t block = p.transposed ? s.block_rows : s.block_cols;
  return block % 32 == 0 && (block <= kDepthBytes / 2 || block % (kDepthBytes / 2) == 0);
}
bool decodes_to_bf16(const Operand& m) {
  return m.scales.code == ScaleCode::none || m.scales.code == ScaleCode::f32 || m.scales.block_cols % 16 == 0;
}
bool exact_in_bf16(const Operand& m) {
  return m.code != ElementCode::f32 && m.code != ElementCode::f16;
}

bool bf16_is_possible(const FloatGemm& p) {
  return can_fold(p) && decodes_to_bf16(p.x) && decodes_to_bf16(p.w) && p.x.scales.code != ScaleCode::f32;
}

bool wants_bf16(const FloatGemm& p) {
  if (p.compute == Compute::f32 || !bf16_is_possible(p)) return false;
  return p.compute == Compute::bf16 || (exact_in_bf16(p.x) && exact_in_bf16(p.w));
}

/// The kernels for a product at the level in force on this thread.
FloatKernels choose(const FloatGemm& p) {
#if defined(__x86_64__)
  if (wants_bf16(p)) {
    if (enabled(Isa::amx)) return bf16_kernels<Isa::amx>();
    if (enabled(Isa::avx512bf16)) return bf16_kernels<Isa::avx512bf16>();
  }
#endif
  return with_isa([]<Isa I> { return f32_kernels<I>(); });
}

/// Sizes of a product, and where its scratch lies.
struct Layout {
  int64_t rows, columns, depth;  // of y, and the length of the reduction
  int64_t step;                  // of the reduction between two packings
  bool few_rows;
  int64_t row_bytes;  // of a packed row in scratch
  int64_t x_stride = 0, x_shift = 0;
  int64_t x_bytes = 0;              // few rows: all of x, shared by the threads
  int64_t task_rows, task_columns;  // of y
  int64_t sums_stride;              // floats
  int64_t rows_at = 0, panels_at = 0, sums_at = 0, fold_at = 0, thread_bytes = 0;

  Layout(const FloatGemm& p, const FloatKernels& k, int threads) {
    rows = p.x.rows;
    columns = p.transposed ? p.w.cols : p.w.rows;
    depth = p.x.cols;
    if (rows == 0 || columns == 0) return;
    few_rows = !p.transposed && rows <= kFewRows;
    step = (few_rows ? 4 : 1) * kDepthBytes / k.element_bytes;
    if (p.w.scales.code == ScaleCode::f32 && k.element_bytes == 2)
      step = std::min(step, p.transposed ? p.w.scales.block_rows : p.w.scales.block_cols);
    const int64_t granule = few_rows ? kLanes * 4 / k.element_bytes : k.granule;
    row_bytes = round_up_to(std::min(step, round_up_to(depth, granule)) * k.element_bytes, 64) + kRowPadBytes;
    if (few_rows) {
      x_stride = round_up_to(depth * k.element_bytes, 128) + kRowPadBytes;
      x_bytes = 64 + rows * x_stride;
      // Where dot_stored's aligned loads of the first row's codes begin, those of x are aligned, too.
      if (bits(p.w.code) == 8 && k.element_bytes == 2) x_shift = 2 * reinterpret_cast<uintptr_t>(p.w.data) % 64;
      task_rows = rows;
      task_columns = kFewRowsColumns;
      sums_stride = task_columns;
      panels_at = kDotRows * row_bytes;
      sums_at = panels_at + kDotRows * rows * kLanes * 4;
      fold_at = sums_at + rows * sums_stride * 4;
      thread_bytes = round_up_to(fold_at + kDotRows * 4, 64);
      return;
    }
    const int64_t share = round_up_to(divide_up(columns, 2 * threads), k.columns);
    const int64_t blocks = divide_up(columns, threads > 1 ? std::min(share, kColumnsAtOnce) : kColumnsAtOnce);
    task_columns = round_up_to(divide_up(columns, blocks), k.columns);
    task_rows = round_up_to(divide_up(rows, divide_up(rows, kRowsAtOnce)), k.rows);
    sums_stride = task_columns + 16;
    const int64_t decoded = p.transposed ? 2 * (task_columns * k.element_bytes + 64) : kTransposeRows * row_bytes;
    const int64_t left_at = round_up_to(decoded, 64);
    rows_at = left_at;
    panels_at = left_at + k.rows * kPackedRowBytes;
    sums_at = panels_at + task_columns * (row_bytes - kRowPadBytes);
    fold_at = sums_at + std::min(task_rows, round_up_to(rows, k.rows)) * sums_stride * 4;
    thread_bytes = round_up_to(fold_at + task_columns * 4, 64);
  }
};

void zero(uint8_t* from, int64_t bytes) {
  if (bytes > 0) std::memset(from, 0, static_cast<size_t>(bytes));
}

float f32_scale(const BlockScales& s, int64_t r, int64_t c) {
  float value;
  const int64_t at = r / s.block_rows * s.stride + c / s.block_cols;
  std::memcpy(&value, static_cast<const uint8_t*>(s.data) + 4 * at, 4);
  return value;
}

/// One product on one thread's scratch.
struct Worker {
  const FloatGemm& p;
  const FloatKernels& k;
  const Layout& at;
  const Output& y;
  uint8_t* scratch;

  float* fold() const {
    return p.w.scales.code == ScaleCode::f32 && k.element_bytes == 2 ? reinterpret_cast<float*>(scratch + at.fold_at)
                                                                     : nullptr;
  }
  float* sums() const { return reinterpret_cast<float*>(scratch + at.sums_at); }

  /// Rows of x, padded along the reduction up to `depth` and scaled.
  void decode_left(const Rectangle& part, int64_t depth, uint8_t* out, int64_t stride_bytes) const {
    const int64_t stride = stride_bytes / k.element_bytes;
    if (p.reduction_scale != nullptr) {
      k.decode_scaled(p.x, part, p.reduction_scale + part.c0, out, stride);
    } else {
      k.decode(p.x, part, out, stride);
    }
    for (int64_t r = 0; r < part.rows; ++r)
      zero(out + r * stride_bytes + part.cols * k.element_bytes, (depth - part.cols) * k.element_bytes);
  }

  /// Asks for stored bytes that are decoded next.
  static void prefetch(const Operand& m, const Rectangle& part) {
    const int64_t from = part.c0 * bits(m.code) / 8, bytes = part.cols * bits(m.code) / 8;
    for (int64_t r = 0; r < part.rows; ++r) {
      const uint8_t* row = static_cast<const uint8_t*>(m.data) + (part.r0 + r) * m.stride + from;
      for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
    }
  }

  /// Panels of columns [n0, n0 + n) for the part [k0, k0 + count) of the reduction, padded to `depth`.
  void pack_forward(int64_t n0, int64_t n, int64_t k0, int64_t count, int64_t depth, uint8_t* panels) const {
    const int64_t dwords = depth * k.element_bytes / 4;
    const int64_t group = std::min<int64_t>(kTransposeRows, k.columns);
    for (int64_t c = 0; c < round_up_to(n, k.columns); c += group) {
      const int64_t have = std::clamp<int64_t>(n - c, 0, group);
      prefetch(p.w, {n0 + c + group, std::clamp<int64_t>(n - c - group, 0, group), k0, count});
      if (have > 0) k.decode(p.w, {n0 + c, have, k0, count}, scratch, at.row_bytes / k.element_bytes);
      for (int64_t r = 0; r < have; ++r)
        zero(scratch + r * at.row_bytes + count * k.element_bytes, (depth - count) * k.element_bytes);
      for (int64_t r = have; r < group; ++r) zero(scratch + r * at.row_bytes, depth * k.element_bytes);
      uint8_t* panel = panels + (c / k.columns * k.columns * dwords + c % k.columns) * 4;
      k.transpose_dwords(scratch, group, dwords, at.row_bytes / 4, panel, k.columns);
    }
  }

  void pack_transposed(int64_t n0, int64_t n, int64_t k0, int64_t count, int64_t depth, uint8_t* panels) const {
    const int64_t dwords = depth * k.element_bytes / 4, pack = 4 / k.element_bytes;
    const int64_t width = round_up_to(n, k.columns), row_bytes = at.task_columns * k.element_bytes + 64;
    for (int64_t i = 0; i < dwords; ++i) {
      for (int64_t j = 0; j < pack; ++j) {
        uint8_t* row = scratch + j * row_bytes;
        const int64_t r = i * pack + j, have = r < count ? n : 0;
        if (have > 0) k.decode(p.w, {k0 + r, 1, n0, n}, row, row_bytes / k.element_bytes);
        zero(row + have * k.element_bytes, (width - have) * k.element_bytes);
      }
      for (int64_t c = 0; c < width; c += k.columns)
        k.interleave(scratch + c * k.element_bytes, scratch + row_bytes + c * k.element_bytes, k.columns,
                     panels + (c * dwords + i * k.columns) * 4);
    }
  }

  void read_fold(int64_t n0, int64_t n, int64_t k0) const {
    float* out = fold();
    if (out == nullptr || at.depth == 0) return;
    for (int64_t c = 0; c < round_up_to(n, k.columns); ++c)
      out[c] = c >= n ? 0 : p.transposed ? f32_scale(p.w.scales, k0, n0 + c) : f32_scale(p.w.scales, n0 + c, k0);
  }

  /// Rows [m0, m0 + m) x columns [n0, n0 + n) of y.
  void tile(int64_t m0, int64_t m, int64_t n0, int64_t n) const {
    uint8_t* left = scratch + at.rows_at;
    uint8_t* panels = scratch + at.panels_at;
    if (k.begin != nullptr) k.begin();
    for (int64_t k0 = 0; k0 < std::max<int64_t>(at.depth, 1); k0 += at.step) {
      const int64_t count = std::min(at.step, at.depth - k0), depth = round_up_to(count, k.granule);
      const int64_t dwords = depth * k.element_bytes / 4;
      if (p.transposed) {
        pack_transposed(n0, n, k0, count, depth, panels);
      } else {
        pack_forward(n0, n, k0, count, depth, panels);
      }
      read_fold(n0, n, k0);
      for (int64_t done = 0, tiles = divide_up(m, k.rows); done < m; --tiles) {
        // Even tiles, unless all rows are written anyway.
        const int64_t rows = k.full_tiles ? std::min<int64_t>(k.rows, m - done) : divide_up(m - done, tiles);
        decode_left({m0 + done, rows, k0, count}, depth, left, kPackedRowBytes);
        if (k.full_tiles) zero(left + rows * kPackedRowBytes, (k.rows - rows) * kPackedRowBytes);
        prefetch(p.x, {m0 + done + rows, std::min<int64_t>(k.rows, m - done - rows), k0, count});
        for (int64_t c = 0; c < n; c += k.columns)
          k.multiply(rows, dwords, left, panels + c * dwords * 4, sums() + done * at.sums_stride + c, at.sums_stride,
                     fold() == nullptr ? nullptr : fold() + c, k0 > 0);
        done += rows;
      }
    }
    if (k.end != nullptr) k.end();
    for (int64_t r = 0; r < m; ++r) k.finish(p.epilogue, m0 + r, n0, n, sums() + r * at.sums_stride, y);
  }

  /// Columns [n0, n0 + n) of y for few rows; `x` holds them decoded.
  void dots(const uint8_t* x, int64_t x_stride, int64_t n0, int64_t n) const {
    if (k.dot_stored != nullptr && k.dot_stored(p.w, n0, n, x, x_stride, at.rows, sums(), at.sums_stride)) {
      for (int64_t m = 0; m < at.rows; ++m) k.finish(p.epilogue, m, n0, n, sums() + m * at.sums_stride, y);
      return;
    }
    float* partial = reinterpret_cast<float*>(scratch + at.panels_at);
    const int64_t granule = kLanes * 4 / k.element_bytes;
    for (int64_t c = 0; c < n; c += kDotRows) {
      const int64_t have = std::min(kDotRows, n - c);
      for (int64_t k0 = 0; k0 < std::max<int64_t>(at.depth, 1); k0 += at.step) {
        const int64_t count = std::min(at.step, at.depth - k0), depth = round_up_to(count, granule);
        k.decode(p.w, {n0 + c, have, k0, count}, scratch, at.row_bytes / k.element_bytes);
        for (int64_t r = 0; r < kDotRows; ++r) {
          const int64_t columns = r < have ? count : 0;
          zero(scratch + r * at.row_bytes + columns * k.element_bytes, (depth - columns) * k.element_bytes);
        }
        if (fold() != nullptr && count > 0)
          for (int64_t r = 0; r < kDotRows; ++r) fold()[r] = r < have ? f32_scale(p.w.scales, n0 + c + r, k0) : 0;
        k.dot(scratch, at.row_bytes, x + k0 * k.element_bytes, x_stride, at.rows, depth * k.element_bytes / 4, partial,
              fold(), k0 > 0);
      }
      for (int64_t r = 0; r < have; ++r)
        for (int64_t m = 0; m < at.rows; ++m) {
          float* lanes = partial + (r * at.rows + m) * kLanes;
          for (int64_t half = kLanes / 2; half > 0; half /= 2)
            for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
          sums()[m * at.sums_stride + c + r] = lanes[0];
        }
    }
    for (int64_t m = 0; m < at.rows; ++m) k.finish(p.epilogue, m, n0, n, sums() + m * at.sums_stride, y);
  }
};

void check(const FloatGemm& p) {
  assert(p.x.cols == (p.transposed ? p.w.rows : p.w.cols));
  assert(bits(p.w.code) >= 8 || p.w.scales.code == ScaleCode::none || p.w.scales.block_cols % 2 == 0);
  assert(bits(p.x.code) >= 8 || p.x.scales.code == ScaleCode::none || p.x.scales.block_cols % 2 == 0);
  (void)p;
}

}  // namespace

bool computes_in_bf16(const FloatGemm& product) {
  return choose(product).element_bytes == 2;
}

FloatGemmChoice float_gemm_choice(const FloatGemm& product) {
  const FloatKernels kernels = choose(product);
  FloatGemmChoice choice{.level = kernels.isa, .bf16 = kernels.element_bytes == 2};
  if (!choice.bf16)
    choice.obstacle = wants_bf16(product)         ? FloatGemmChoice::Obstacle::level
                      : bf16_is_possible(product) ? FloatGemmChoice::Obstacle::operands
                                                  : FloatGemmChoice::Obstacle::scales;
  return choice;
}

size_t float_gemm_scratch(const FloatGemm& product, int threads) {
  check(product);
  const int team = gemm_threads(threads);
  const Layout at(product, choose(product), team);
  return static_cast<size_t>(64 + at.x_bytes + team * at.thread_bytes);
}

void float_gemm(const FloatGemm& product, const Output& y, void* scratch, int threads) {
  check(product);
  const int team = gemm_threads(threads);
  const FloatKernels k = choose(product);
  const Layout at(product, k, team);
  if (at.rows == 0 || at.columns == 0) return;
  uint8_t* x = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
  uint8_t* own = x + at.x_bytes;
  const auto worker = [&](int thread) { return Worker{product, k, at, y, own + thread * at.thread_bytes}; };
  const int64_t across = divide_up(at.columns, at.task_columns);
  if (at.few_rows) {
    const int64_t stride = at.x_stride;
    x += at.x_shift;
    worker(0).decode_left({0, at.rows, 0, at.depth}, (stride - kRowPadBytes) / k.element_bytes, x, stride);
    parallel_tasks(team, across, [&](int64_t task, int thread) {
      const int64_t n0 = task * at.task_columns;
      worker(thread).dots(x, stride, n0, std::min(at.task_columns, at.columns - n0));
    });
    return;
  }
  parallel_tasks(team, across * divide_up(at.rows, at.task_rows), [&](int64_t task, int thread) {
    const int64_t m0 = task / across * at.task_rows, n0 = task % across * at.task_columns;
    worker(thread).tile(m0, std::min(at.task_rows, at.rows - m0), n0, std::min(at.task_columns, at.columns - n0));
  });
}

}  // namespace mezzotint::kernel
