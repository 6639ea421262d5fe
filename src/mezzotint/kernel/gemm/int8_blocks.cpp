#include "mezzotint/kernel/gemm/int8_blocks.h"

#include <algorithm>

#include "mezzotint/kernel/gemm/gemm_threads.h"
#include "mezzotint/kernel/transpose.h"

namespace mezzotint::kernel {
namespace {

/// Calls f(row0, rows) for every 128 rows.
template <class F>
void for_each_band(int threads, int64_t rows, F&& f) {
  parallel_tasks(threads, (rows + kInt8Block - 1) / kInt8Block, [&](int64_t task, int) {
    const int64_t row0 = task * kInt8Block;
    f(row0, std::min(kInt8Block, rows - row0));
  });
}

}  // namespace

void int8_gelu(const Int8Codes& x, int64_t rows, int64_t cols, const Int8BlockOutput& out, int threads, Gelu gelu) {
  with_isa([&]<Isa I> {
    for_each_band(threads, rows,
                  [&](int64_t row0, int64_t count) { int8_gelu_rows<I>(x, row0, count, cols, out, gelu); });
  });
}

void int8_transpose(const Int8Codes& x, int64_t rows, int64_t cols, const Int8BlockOutput& out, int threads) {
  with_isa([&]<Isa I> {
    for_each_band(threads, rows,
                  [&](int64_t row0, int64_t count) { int8_transpose_rows<I>(x, row0, count, cols, out); });
  });
}

void int8_transpose_weight(const Int8Codes& w, int64_t rows, int64_t cols, const Int8BlockOutput& out) {
  transpose(w.codes, rows, cols, w.stride, out.codes, out.stride, 1);
  transpose(w.scales, (rows + kInt8Block - 1) / kInt8Block, (cols + kInt8Block - 1) / kInt8Block, w.scales_stride,
            out.scales, out.scales_stride, 4);
}

}  // namespace mezzotint::kernel
