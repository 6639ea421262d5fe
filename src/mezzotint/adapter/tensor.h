#pragma once
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "mezzotint/base/dtype.h"

namespace mezzotint::adapter {

/// Adapters see a weight [O, I, *kernel] as the matrix [O, I * prod(kernel)]; a vector [N] has N rows of one column.
inline int64_t matrix_rows(const Shape& shape) {
  return shape.empty() ? 1 : shape.front();
}
inline int64_t matrix_cols(const Shape& shape) {
  return shape.empty() ? 1 : std::accumulate(shape.begin() + 1, shape.end(), int64_t{1}, std::multiplies<>());
}
/// Elements of the kernel: what is behind the second dimension.
inline int64_t kernel_size(const Shape& shape) {
  return shape.size() < 2 ? 1 : std::accumulate(shape.begin() + 2, shape.end(), int64_t{1}, std::multiplies<>());
}

/// A tensor of an adapter file, widened to float32, row-major.
struct Tensor {
  Shape shape;
  std::vector<float> values;

  int64_t rows() const { return matrix_rows(shape); }
  int64_t cols() const { return matrix_cols(shape); }
  const float* row(int64_t r) const { return values.data() + r * cols(); }
};

}  // namespace mezzotint::adapter
