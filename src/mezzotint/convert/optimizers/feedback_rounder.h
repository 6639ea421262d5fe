#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "mezzotint/convert/optimizers/basis_factor.h"
#include "mezzotint/convert/optimizers/grid.h"
#include "mezzotint/convert/optimizers/hessian.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::convert {

/// What rounding did to some rows; all sums of e H e'.
struct FeedbackSums {
  double plain = 0;    ///< each weight to its nearest code, at the same scales
  double rounded = 0;  ///< as returned
  int64_t rows = 0;
  int64_t rows_plain = 0;    ///< rows that stay plainly rounded, because feedback did not lower the objective
  int64_t rows_rotated = 0;  ///< rows that an attempt in a rotated basis won (ObjectiveOptions::signs)

  /// Of further rows.
  void add(const FeedbackSums& other) {
    plain += other.plain;
    rounded += other.rounded;
    rows += other.rows;
    rows_plain += other.rows_plain;
    rows_rotated += other.rows_rotated;
  }
};

/// Rounds rows of a weight so that e H e' is small: LDLQ, which equals GPTQ (Chee et al. 2023; Frantar et al. 2022),
/// with one Cholesky factor and no inverse (algorithms.md 6.2), then sweeps of coordinate descent (6.3). A row for
/// which that is not below plain rounding stays plainly rounded. Scales are fixed beforehand, so any order will do.
class FeedbackRounder {
 public:
  /// Scratch of one thread, in bytes about 4 * (cols * 3 + 4096) * rows floats.
  struct Workspace {
    TileBuffers tiles;
    std::vector<float> base, error, carried, block, coupling, sums, seen;
    std::vector<std::byte> codes;
  };

  /// `l` is the factor of `h`, both of the columns from col0 on; column_at[position] is the column, positions in the
  /// order of hessian.h. All must outlive this.
  FeedbackRounder(const LowerTiles& h, const LowerTiles& l, int64_t col0, std::span<const int32_t> column_at);
  /// By a factor of low rank, in time that grows with the rank and not with the width. There is no H then: no sweeps
  /// and no challenge.
  FeedbackRounder(const BasisFactor& factor, int64_t col0, std::span<const int32_t> column_at);

  /// `tile` holds whole rows of one expert, finite float32 after the format's transform. Writes the values of the
  /// chosen codes to these columns of `out`, rows layout.cols apart, which may be the tile's own memory: Format::encode
  /// makes these codes of them. sweeps: of coordinate descent. With a `grid` of padded(rows) rows the codes are its
  /// points, and not the format's.
  FeedbackSums round(const formats::Layout& layout, const formats::Parameters& parameters, const formats::Tile& tile,
                     Workspace& workspace, float* out, int sweeps, const ScaledGrid* grid = nullptr) const;

  /// `out` holds values of codes, as round() leaves them, and `start` [rows, layout.cols] others. Sweeps of coordinate
  /// descent lead on from `start`; a row whose e H e' is then below that of `out` replaces it. The sums are of these
  /// two: plain = of `out` as it was, rows_plain = rows that stay.
  FeedbackSums challenge(const formats::Layout& layout, const formats::Parameters& parameters,
                         const formats::Tile& tile, const float* start, Workspace& workspace, float* out,
                         int sweeps) const;

  /// Rows that a grid has for so many rows of a strip.
  static int64_t padded(int64_t rows);

  /// Bytes of a workspace and of the grid's scales for strips of so many rows.
  static uint64_t workspace_bytes(const formats::Layout& layout, int64_t rows);

 private:
  struct Strip;
  struct BlockTask;

  void open(const Strip& strip, const formats::Tile& tile, Workspace& w) const;
  void gather(const Strip& strip, const float* values, int64_t row_stride, Workspace& w, float* to,
              int64_t to_stride) const;
  FeedbackSums settle(const Strip& strip, Workspace& w, float* out) const;
  void measure(const Strip& strip, Workspace& w) const;
  void feed_back(Strip& strip, Workspace& w) const;
  void feed_back_by_basis(Strip& strip, Workspace& w) const;
  void round_halves(const Strip& strip, Workspace& w, int64_t first, int64_t columns, const float* carried) const;
  void place_columns();
  void descend(Strip& strip, Workspace& w) const;
  void round_block(const Strip& strip, Workspace& w, int64_t first, int64_t columns, const BlockTask& task) const;

  const LowerTiles* h_ = nullptr;
  const LowerTiles* l_ = nullptr;
  const BasisFactor* basis_ = nullptr;
  int64_t n_, col0_;
  std::span<const int32_t> column_at_;
  std::vector<int32_t> position_;                    // by column from col0 on
  std::vector<float> pivot_energy_, inverse_pivot_;  // of l, by position
  std::vector<float> diagonal_, inverse_diagonal_;   // of h
};

}  // namespace mezzotint::convert
