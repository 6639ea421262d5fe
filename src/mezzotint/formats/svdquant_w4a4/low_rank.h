#pragma once
#include <cstdint>

#include "mezzotint/kernel/isa.h"

namespace mezzotint::formats::svdquant_w4a4 {

/// sum[c] = up[0] * down[c] + up[1] * down[stride + c] + ..., added up in this order in float32, without contraction.
template <kernel::Isa I>
void low_rank_row(const float* up, const float* down, int64_t stride, int64_t rank, int64_t cols, float* sum);

}  // namespace mezzotint::formats::svdquant_w4a4
