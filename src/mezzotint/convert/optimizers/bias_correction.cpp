#include "mezzotint/convert/optimizers/bias_correction.h"

#include <cmath>

namespace mezzotint::convert {

void bias_correction(const float* original, const float* decoded, int64_t rows, int64_t cols, int64_t stride,
                     const float* mean, float* correction) {
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t j = 0; j < cols; ++j) {
      const double lost = static_cast<double>(original[r * stride + j]) - static_cast<double>(decoded[r * stride + j]);
      if (std::isfinite(lost)) sum += lost * static_cast<double>(mean[j]);
    }
    correction[r] = static_cast<float>(sum);
  }
}

}  // namespace mezzotint::convert
