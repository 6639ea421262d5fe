#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace mezzotint::convert {

/// The factor of H = V V' + damping I for V [n, rank], without H: H = L L' with
///
///     L[q][p] = v[q] g[p]'   for q > p,      L[p][p] = pivot[p]
///
/// A Cholesky factor of a diagonal and a low rank has the same low rank below its diagonal, and is found in n rank^2
/// steps: with M = I at first, for p = 0, 1, ...: pivot^2 = damping + v M v', g = v M / pivot, M -= g' g. In double.
struct BasisFactor {
  int64_t n = 0, rank = 0;
  std::vector<float> v, g;   ///< [n, rank]
  std::vector<float> pivot;  ///< [n]

  /// `basis` holds the columns of V as rows [rank, cols]; row p of V is column column_at[p] of it.
  BasisFactor(std::span<const float> basis, int64_t cols, std::span<const int32_t> column_at, double damping);

  static uint64_t bytes(int64_t n, int64_t rank) {
    return sizeof(float) * static_cast<uint64_t>(n) * static_cast<uint64_t>(2 * rank + 1);
  }
};

}  // namespace mezzotint::convert
