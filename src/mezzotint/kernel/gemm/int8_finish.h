#pragma once
// Included by ISA files: what every level of the int8 products does with its sums.
#include "mezzotint/kernel/gemm/finish.h"
#include "mezzotint/kernel/gemm/int8_level.h"

namespace mezzotint::kernel {
namespace {

/// Columns of y that the part starting at col0 has.
[[gnu::always_inline]] inline int64_t part_columns(const Int8Job& job, int64_t col0) {
  return smaller(kInt8Panel, job.cols - col0);
}

/// One row of a part, float32 sums to the output; the values are overwritten.
[[gnu::noinline, maybe_unused]] void finish_part_row(const Int8Job& job, int64_t row, int64_t col0, float* values) {
  const int64_t n = part_columns(job, col0);
  finish_values(job.epilogue, row, col0, n, values);
  if (job.blocks.codes == nullptr) return store_values(job.y, row, col0, n, values);
  const float scale = int8_scale(n, values);
  job.blocks.scales[row * job.blocks.scales_stride + col0 / kInt8Block] = scale;
  int8_codes(n, values, scale, -127.0f, 127.0f,
             reinterpret_cast<Byte*>(job.blocks.codes) + row * job.blocks.stride + col0);
}

/// total[j] (+)= float32 of the int32 sums[j], a panel's width of them. total may be sums, first then.
[[gnu::noinline, maybe_unused]] void add_stretch(const Dword* sums, bool first, float* total) {
  for (int64_t j = 0; j < kInt8Panel; ++j) {
    const float sum = static_cast<float>(static_cast<int32_t>(sums[j]));
    const float value = first ? sum : total[j] + sum;
    total[j] = value;
  }
}

}  // namespace
}  // namespace mezzotint::kernel
