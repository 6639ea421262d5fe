#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/formats/driver.h"

/// What a format does to a weight, measured on some of its rows by the format's own functions.
namespace mezzotint::convert {

/// Sums in double over the measured rows.
struct QuantizationError {
  double error = 0;      ///< ||E||^2, E = decoded - W
  double norm = 0;       ///< ||W||^2
  double out_error = 0;  ///< ||E D||^2 with D = diag(sqrt(weight of the column)), where columns have weights
  double out_norm = 0;   ///< ||W D||^2
  /// (||E|| / ||W||)^2; 0 for a weight of zeros.
  double relative_squared() const { return norm > 0 ? error / norm : 0; }
  double out_relative_squared() const { return out_norm > 0 ? out_error / out_norm : 0; }
};

/// Rows of one weight: a sample that is read once and measured under several formats, or all rows, which every sweep
/// reads again in tiles. Elements that are not finite take no part.
///
/// A sample consists of runs of rows, evenly spread over the weight and its experts, as long as every format asks for
/// (`granule`); the sampled rows are quantized as a matrix of their own. What that leaves out is the largest value of
/// the other rows, so a format with one scale for the whole weight looks better than it is where a few rows hold
/// outliers, unless its codes are floats; formats with scales per row or block are measured without such a bias.
class MeasuredRows {
 public:
  /// About `most_rows` rows, of a weight that hardly has more all of them; `most_rows` = 0 is all rows in tiles.
  /// Nothing is read yet. `layout` is any layout of the weight's shape.
  MeasuredRows(const checkpoint::WeightValues& values, const formats::Layout& layout, int64_t granule,
               int64_t most_rows);

  int64_t rows() const { return rows_; }
  int64_t total_rows() const { return total_rows_; }
  /// Bytes of the file that one sweep over them reads.
  uint64_t stored_bytes() const;
  /// Whether the format takes a matrix of as many rows as the sample has.
  bool fits(const formats::Layout& layout) const { return sampled_layout(layout).has_value(); }
  /// Reads the sample into memory; does nothing for all rows in tiles.
  void load();

  /// Chooses parameters as `choose` says, encodes, decodes and compares. `weight`: of the columns, [K], or empty.
  QuantizationError measure(const formats::Layout& layout, const formats::ChooseOptions& choose,
                            const Rounding& rounding, std::span<const float> weight);

 private:
  struct Scratch {
    std::vector<float> values, transformed, decoded;
    std::vector<std::byte> stored, codes;
  };
  /// The layout for the rows that are measured, if the format takes so few.
  std::optional<formats::Layout> sampled_layout(const formats::Layout& layout) const;
  const float* read(const formats::RowRange& range, Scratch& scratch) const;

  const checkpoint::WeightValues* values_;
  int64_t granule_, rows_, total_rows_, cols_;
  bool held_;                    ///< in memory
  int64_t run_rows_ = 0;         ///< rows of a run; 0 = all rows of the weight
  std::vector<int64_t> starts_;  ///< first row of every run
  std::vector<float> sample_;
};

}  // namespace mezzotint::convert
