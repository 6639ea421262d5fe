#pragma once
#include <cstdint>

#include "mezzotint/adapter/tensor.h"

/// What a patch does to a weight, its factors in memory: the numbers behind merging.
namespace mezzotint::adapter {

/// delta = scale * up * down, with up [rows, rank] and down [rank, cols].
struct LowRank {
  Tensor up, down;
  double scale = 1;
  int64_t rank() const { return down.rows(); }
};

/// The weight is given as runs of whole rows of float32, [rows, cols] (tensor.h); arithmetic is float32, but factors
/// that are inverted are so in double. Immutable, so safe to use from several threads.
///
/// Strength 0 leaves every weight as it is, strength 1 gives what was trained. In between, additive effects scale their
/// delta, rotations go from the identity to R stage by stage, and DoRA goes straight from W to its result.
class Effect {
 public:
  /// `shape` is that of the weight that comes out.
  explicit Effect(Shape shape) : shape_(std::move(shape)) {}
  virtual ~Effect() = default;
  Effect(const Effect&) = delete;
  Effect& operator=(const Effect&) = delete;

  /// The weight's shape behind it: that in front, but for an adapter that enlarges it. It is then given with zeros
  /// around it already (grow, stack.h).
  const Shape& shape() const { return shape_; }
  int64_t rows() const { return matrix_rows(shape_); }
  int64_t cols() const { return matrix_cols(shape_); }

  /// Rows that must be given together: runs start at multiples of it and end at one or at the last row. rows() where
  /// every row depends on all others.
  virtual int64_t granule() const { return 1; }
  /// Whether it adds strength * delta, whatever the weight: applied to zeros it gives that delta.
  virtual bool additive() const { return false; }
  /// Its factors where the delta is a product of two matrices, else null.
  virtual const LowRank* low_rank() const { return nullptr; }

  /// Changes rows row0 .. row0 + rows of the weight in place.
  virtual void apply(int64_t row0, int64_t rows, float* weight, double strength) const = 0;

 private:
  Shape shape_;
};

}  // namespace mezzotint::adapter
