#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "mezzotint/formats/format.h"
#include "mezzotint/kernel/feedback.h"

/// What a layer's codes can mean, once its scales are fixed: what rounding with feedback needs to know of a format.
namespace mezzotint::convert {

/// The grid and the scales of some rows of one expert: element (r, c) is a point of `grid` times
/// scale(c)[r]. Scales are float32; they may differ from what decode() multiplies with in the last place, which
/// decides nothing: the codes are made by Format::encode from the values.
class ScaledGrid {
 public:
  /// Rows [row0, row0 + rows) of the weight, all in one expert; `padded_rows` >= rows is the length of the columns of
  /// scales (1 beyond `rows`). Nothing for formats whose codes are not a grid times a scale (codebooks).
  static std::optional<ScaledGrid> of(const formats::Layout& layout, const formats::Parameters& parameters,
                                      int64_t row0, int64_t rows, int64_t padded_rows);

  /// Integers of so many bits, symmetric, times one scale per row: of [rows, cols] values with the largest of them as
  /// the largest code.
  static ScaledGrid of_rows(int bits, const float* values, int64_t rows, int64_t cols, int64_t padded_rows);

  const kernel::Grid& grid() const { return grid_; }
  const float* scale(int64_t column) const { return scales_.data() + column / block_cols_ * padded_rows_; }
  const float* inverse_scale(int64_t column) const { return inverses_.data() + column / block_cols_ * padded_rows_; }

 private:
  kernel::Grid grid_;
  int64_t block_cols_ = 1, padded_rows_ = 0;
  std::vector<float> scales_, inverses_;  // [block of columns][row]
};

}  // namespace mezzotint::convert
