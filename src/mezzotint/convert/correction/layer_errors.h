#pragma once
#include <cstdint>
#include <vector>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/correction/low_rank.h"

namespace mezzotint::convert {

/// Sums of squares of a matrix: by a metric, and plain.
struct Energy {
  double metric = 0, plain = 0;
};

/// The error of one weight, W - W_q (or any other difference of two of one shape), block by block, as a matrix [rows,
/// cols] of all its elements. Where a value is not finite, both count as 0: nothing can be corrected there.
class LayerErrors {
 public:
  /// Errors are kept in memory where they fit `memory` bytes, else decoded anew by every pass; the bits are the same.
  LayerErrors(checkpoint::WeightValues original, checkpoint::WeightValues quantized, int64_t rows, int64_t cols,
              uint64_t memory);
  LayerErrors(const LayerErrors&) = delete;
  LayerErrors& operator=(const LayerErrors&) = delete;

  /// Has to come first.
  void measure(const Metric& metric, int threads, Energy& weight, Energy& error);
  const BlockedMatrix& matrix() const { return matrix_; }
  /// What is left of the error behind a correction.
  Energy measure_rest(const Metric& metric, const LowRank& factors, int threads) const;

 private:
  void read(size_t block, float* error, std::vector<float>& decoded) const;

  checkpoint::WeightValues original_, quantized_;
  std::vector<std::vector<checkpoint::Run>> runs_;  // of every block
  BlockedMatrix matrix_;
  std::vector<float> kept_;
};

}  // namespace mezzotint::convert
