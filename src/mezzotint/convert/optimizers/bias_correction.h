#pragma once
#include <cstdint>

namespace mezzotint::convert {

/// What a layer's bias gains so that its mean output stays what it was: b' = b + c with
///
///     c_r = sum_j (W_rj - Wdq_rj) mean(x_j)
///
/// since the quantized layer's mean output W_dq mean(x) + b lacks just that. `original` and `decoded` hold rows of W
/// and of what its codes decode to, `stride` floats apart and both in front of any rotation; `mean` [cols] is measured
/// (LayerStatistics::channel_mean). Summed in double, over finite differences. A row's value depends on that row alone.
void bias_correction(const float* original, const float* decoded, int64_t rows, int64_t cols, int64_t stride,
                     const float* mean, float* correction);

}  // namespace mezzotint::convert
