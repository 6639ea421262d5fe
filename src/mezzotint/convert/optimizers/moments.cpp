#include "mezzotint/convert/optimizers/moments.h"

#include <algorithm>

#include "mezzotint/kernel/transpose.h"

namespace mezzotint::convert {

void rotate_moments(std::vector<float>& h, int64_t n, const std::function<void(float* rows, int64_t count)>& rotate) {
  constexpr int64_t kColumns = 256;
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < r; ++c) h[static_cast<size_t>(c * n + r)] = h[static_cast<size_t>(r * n + c)];
  rotate(h.data(), n);
  std::vector<float> block(static_cast<size_t>(std::min(kColumns, n) * n));
  for (int64_t c = 0; c < n; c += kColumns) {  // columns, as rows; H V is not symmetric
    const int64_t count = std::min(kColumns, n - c);
    kernel::transpose(h.data() + c, n, count, n, block.data(), n, 4);
    rotate(block.data(), count);
    kernel::transpose(block.data(), count, n, n, h.data() + c, n, 4);
  }
}

}  // namespace mezzotint::convert
