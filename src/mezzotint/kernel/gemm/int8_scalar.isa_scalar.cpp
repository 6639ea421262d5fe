// The definition: sums from the stored codes, nothing packed.
#include <math.h>

#include "mezzotint/kernel/gemm/int8_finish.h"

namespace mezzotint::kernel {
namespace {

/// Sum of a[r] * b[r * step] for r < n <= kInt8Stretch; |sum| <= 2^30.
int32_t dot(const int8_t* a, const int8_t* b, int64_t step, int64_t n) {
  int32_t sum = 0;
  if (step == 1) {
    for (int64_t r = 0; r < n; ++r) sum += a[r] * b[r];
  } else {
    for (int64_t r = 0; r < n; ++r) sum += a[r] * b[r * step];
  }
  return sum;
}

float element(const Int8Job& job, int64_t row, int64_t col) {
  const int8_t* a = job.a.codes + row * job.a.stride;
  const int8_t* b = job.b + col * job.b_col;
  const int64_t step = job.block_scaled() ? kInt8Block : kInt8Stretch;
  float acc = 0;
  for (int64_t r = 0; r < job.depth; r += step) {
    const float sum = static_cast<float>(dot(a + r, b + r * job.b_depth, job.b_depth, smaller(step, job.depth - r)));
    if (job.block_scaled()) {
      const float scale = job.a.scales[row * job.a.scales_stride + r / kInt8Block] *
                          job.b_scales[col / kInt8Block * job.b_scale_col + r / kInt8Block * job.b_scale_depth];
      acc = fmaf(sum, scale, acc);
    } else {
      acc = acc + sum;
    }
  }
  return acc;
}

void part(const Int8Job& job, const Int8Part& at) {
  const int64_t cols = part_columns(job, at.col0);
  for (int64_t row = at.row0; row < at.row0 + at.rows; ++row) {
    float values[kInt8Panel];
    for (int64_t j = 0; j < cols; ++j) values[j] = element(job, row, at.col0 + j);
    finish_part_row(job, row, at.col0, values);
  }
}

void pack_nothing(const Int8Job&, int64_t, int64_t, std::byte*) {}

}  // namespace

template <>
Int8Level int8_level<kIsa>() {
  return {{1, 0, 0, kInt8Block, 0}, pack_nothing, part, part};
}

}  // namespace mezzotint::kernel
