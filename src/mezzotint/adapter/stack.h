#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "mezzotint/adapter/effect.h"
#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {

/// Rows that follow one another.
struct RowRun {
  int64_t row0 = 0, rows = 0;
};

/// Everything that adapters do to one tensor, in the order in which they were added: several files, several patches of
/// one file, slices of a fused weight. Effects that depend on the weight see it as the ones in front left it.
class Stack {
 public:
  explicit Stack(Shape shape) : shape_(std::move(shape)) {}

  /// Shape of what comes out: that of the tensor, or larger.
  const Shape& shape() const { return shape_; }
  /// Shape of the rows that a target means: what an effect on it is to be loaded for. Throws Error "adapter-shape"
  /// where the tensor does not have these rows, or has no two halves to swap.
  Shape shape_of(const Target& target) const;
  /// `effect` was loaded for shape_of(target). Throws Error "adapter-shape" where it enlarges a tensor that is changed
  /// already, or a slice.
  void add(std::unique_ptr<const Effect> effect, double strength, const Target& target);

  bool empty() const { return items_.empty(); }
  /// Whether everything adds something that does not depend on the tensor: apply() to zeros gives the whole delta.
  bool additive() const;
  /// Whether runs of rows may be cut in front of this row.
  bool may_cut(int64_t row) const;
  /// Runs of at least `rows` rows (but the last) that together are all rows.
  std::vector<RowRun> cut(int64_t rows) const;
  /// Changes a run, or several that follow one another, in place: [rows, cols] of shape(). A smaller tensor is to be
  /// given grown (grow).
  void apply(RowRun run, float* weight) const;

  struct Item {
    std::unique_ptr<const Effect> effect;
    double strength = 1;
    int64_t row0 = 0, rows = 0;
    bool swap_halves = false;

    /// Rows that must stay together, counted from row0.
    int64_t granule() const;
  };
  const std::vector<Item>& items() const { return items_; }

 private:
  Shape shape_;
  std::vector<Item> items_;
};

/// A tensor put into the corner of a larger one of zeros, of the same rank.
std::vector<float> grow(const std::vector<float>& values, const Shape& from, const Shape& to);

}  // namespace mezzotint::adapter
