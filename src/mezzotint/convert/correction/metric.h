#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/convert/optimizers/tiles.h"

namespace mezzotint::convert {

/// What errors of a weight are measured by: |e|^2 = e H e' for a row e, with H = C C' and C lower triangular or
/// diagonal. Results are the same bits for any number of threads.
class Metric {
 public:
  /// H = 1.
  explicit Metric(int64_t cols);
  /// H = X'X / T where the files have it for this layer, else its diagonal; either with `damping` times the mean
  /// diagonal added to its diagonal, ten times more of it (up to five times) where X'X has no Cholesky factor, and the
  /// diagonal alone where that does not help. Throws Errors of Calibration::read_gram_rows.
  Metric(const Calibration& calibration, std::string_view layer, const LayerStatistics& statistics, double damping,
         int threads);

  int64_t cols() const { return cols_; }
  /// Whether correlations of the inputs are known.
  bool whole() const { return factor_.has_value(); }
  /// What was added to the diagonal.
  double damping() const { return damping_; }
  /// Bytes of the factor while it is made.
  static uint64_t bytes(int64_t cols);

  /// C x and C' x for x [cols, width].
  std::vector<float> multiply(std::span<const float> x, int64_t width, int threads) const;
  std::vector<float> multiply_transposed(std::span<const float> x, int64_t width, int threads) const;
  /// x = x C^-1 for x [rows, cols].
  void divide(int64_t rows, float* x) const;
  /// Sum of |e|^2 over rows [rows, cols], on the calling thread.
  double energy(const float* e, int64_t rows) const;

 private:
  bool factorize(const Calibration& calibration, std::string_view layer, double mean, double damping, int threads);

  int64_t cols_;
  double damping_ = 0;
  std::vector<float> diagonal_;       // of C; empty where C = 1 or where factor_ is there
  std::optional<LowerTiles> factor_;  // both triangles of its diagonal tiles are looked at: the upper ones are zeros
};

}  // namespace mezzotint::convert
