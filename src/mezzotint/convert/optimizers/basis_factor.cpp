#include "mezzotint/convert/optimizers/basis_factor.h"

#include <cmath>

namespace mezzotint::convert {

BasisFactor::BasisFactor(std::span<const float> basis, int64_t cols, std::span<const int32_t> column_at, double damping)
    : n(static_cast<int64_t>(column_at.size())), rank(cols > 0 ? static_cast<int64_t>(basis.size()) / cols : 0) {
  const auto r = static_cast<size_t>(rank);
  v.resize(static_cast<size_t>(n) * r);
  g.resize(v.size());
  pivot.resize(static_cast<size_t>(n));
  std::vector<double> m(r * r), row(r);
  for (size_t i = 0; i < r; ++i) m[i * r + i] = 1;
  for (size_t p = 0; p < pivot.size(); ++p) {
    float* of_v = v.data() + p * r;
    for (size_t i = 0; i < r; ++i) of_v[i] = basis[i * static_cast<size_t>(cols) + static_cast<size_t>(column_at[p])];
    double square = damping;
    for (size_t i = 0; i < r; ++i) {
      row[i] = 0;
      for (size_t j = 0; j < r; ++j) row[i] += m[i * r + j] * static_cast<double>(of_v[j]);
      square += row[i] * static_cast<double>(of_v[i]);
    }
    pivot[p] = static_cast<float>(std::sqrt(square));
    for (size_t i = 0; i < r; ++i) {
      g[p * r + i] = static_cast<float>(row[i] / std::sqrt(square));
      for (size_t j = 0; j < r; ++j) m[i * r + j] -= row[i] * row[j] / square;
    }
  }
}

}  // namespace mezzotint::convert
