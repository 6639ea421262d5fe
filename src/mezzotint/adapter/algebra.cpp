#include "mezzotint/adapter/algebra.h"

#include <fmt/format.h>

#include <cassert>
#include <cmath>

#include "mezzotint/kernel/dense.h"

namespace mezzotint::adapter {

Tensor multiply(const Tensor& a, const Tensor& b) {
  assert(a.cols() == b.rows());
  Tensor c{{a.rows(), b.cols()}, std::vector<float>(static_cast<size_t>(a.rows() * b.cols()))};
  dense::multiply(dense::Transposed::no, dense::Transposed::no, a.rows(), b.cols(), a.cols(), 1.0f, a.values.data(),
                  a.cols(), b.values.data(), b.cols(), 0.0f, c.values.data(), c.cols());
  return c;
}

// For each i, the [K, s] transpose of core[i] times down [s, n] gives [K, n]; stored the other way round.
Tensor fold_core(const Tensor& core, const Tensor& down) {
  const int64_t r = core.shape[0], s = core.shape[1], kernel = kernel_size(core.shape), n = down.cols();
  assert(down.rows() == s);
  Tensor out{{r, n * kernel}, std::vector<float>(static_cast<size_t>(r * n * kernel))};
  for (int64_t i = 0; i < r; ++i) {
    dense::multiply(dense::Transposed::yes, dense::Transposed::no, n, kernel, s, 1.0f, down.values.data(), n,
                    core.values.data() + i * s * kernel, kernel, 0.0f, out.values.data() + i * n * kernel, kernel);
  }
  return out;
}

Tensor transpose(const Tensor& matrix) {
  const int64_t rows = matrix.rows(), cols = matrix.cols();
  Tensor out{{cols, rows}, std::vector<float>(matrix.values.size())};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      out.values[static_cast<size_t>(c * rows + r)] = matrix.values[static_cast<size_t>(r * cols + c)];
  return out;
}

std::string size_text(int64_t rows, int64_t cols) {
  return fmt::format("{}x{}", rows, cols);
}

std::string size_misfit(int64_t rows, int64_t cols, const Shape& weight) {
  const int64_t weight_rows = matrix_rows(weight), weight_cols = matrix_cols(weight);
  if (rows == weight_rows && cols == weight_cols) return "";
  return fmt::format("it is made for a weight of {}, this is {}", size_text(rows, cols),
                     size_text(weight_rows, weight_cols));
}

std::string rescale_misfit(const Parts& parts, const Shape& weight) {
  const Part* rescale = parts.find("rescale");
  if (!rescale || element_count(rescale->shape) == static_cast<uint64_t>(matrix_rows(weight))) return "";
  return "rescale has another size than the weight's rows";
}

// (I + Q)(I - Q)^-1 = 2 (I - Q)^-1 - I. Q is skew, so I - Q is never singular.
Tensor cayley(const Tensor& blocks, double bound) {
  const int64_t b = blocks.shape.back();
  const auto area = static_cast<size_t>(b * b);
  std::vector<double> q(blocks.values.size());
  double squares = 0;
  for (size_t at = 0; at < q.size(); at += area) {
    for (int64_t i = 0; i < b; ++i) {
      for (int64_t j = 0; j < b; ++j) {
        const double value = static_cast<double>(blocks.values[at + static_cast<size_t>(i * b + j)]) -
                             static_cast<double>(blocks.values[at + static_cast<size_t>(j * b + i)]);
        q[at + static_cast<size_t>(i * b + j)] = value;
        squares += value * value;
      }
    }
  }
  const double norm = std::sqrt(squares), shorten = bound > 0 && norm > bound ? bound / norm : 1;
  Tensor rotations{blocks.shape, std::vector<float>(q.size())};
  std::vector<double> inverse(area);
  for (size_t at = 0; at < q.size(); at += area) {
    for (size_t e = 0; e < area; ++e) inverse[e] = -shorten * q[at + e];
    for (int64_t i = 0; i < b; ++i) inverse[static_cast<size_t>(i * b + i)] += 1;
    if (!dense::invert(b, inverse.data())) inverse.assign(area, NAN);  // values that are not finite
    for (int64_t i = 0; i < b; ++i) {
      for (int64_t j = 0; j < b; ++j) {
        const auto e = static_cast<size_t>(i * b + j);
        rotations.values[at + e] = static_cast<float>(2 * inverse[e] - (i == j ? 1 : 0));
      }
    }
  }
  return rotations;
}

void rescale_rows(const Tensor& factors, int64_t row0, int64_t rows, int64_t cols, double strength, float* weight) {
  if (factors.values.empty()) return;
  for (int64_t r = 0; r < rows; ++r) {
    const double stored = static_cast<double>(factors.values[static_cast<size_t>(row0 + r)]);
    const auto factor = static_cast<float>(1 + strength * (stored - 1));
    for (int64_t c = 0; c < cols; ++c) weight[r * cols + c] *= factor;
  }
}

}  // namespace mezzotint::adapter
