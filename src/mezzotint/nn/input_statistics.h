#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mezzotint/convert/calibration/calibration.h"

namespace mezzotint::nn {

/// Adds up what the inputs of one layer look like (room-internal). Sums are double, X'X is float32.
class InputStatistics {
 public:
  InputStatistics(int64_t cols, bool gram);

  /// x [..., cols], any float dtype and device. Rows whose squares are not finite are left out and counted.
  void add(const at::Tensor& x);

  uint64_t tokens() const { return tokens_; }
  uint64_t skipped() const { return skipped_; }
  convert::LayerStatistics result() const;
  /// Row of the lower triangle of X'X / T: row + 1 floats.
  void gram_row(int64_t row, float* out) const;

 private:
  int64_t cols_;
  uint64_t tokens_ = 0, skipped_ = 0;
  std::vector<float> amax_;
  std::vector<double> sums_, squares_;
  std::vector<int64_t> histogram_;
  at::Tensor gram_;
};

}  // namespace mezzotint::nn
