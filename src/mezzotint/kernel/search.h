#pragma once
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Better scales for signed 8-bit codes (code = rint(w / s) within +-127) than absmax / 127: a smaller scale clips the
/// largest weights and rounds all others more finely.
///
/// Errors are sums of h_c (w / s0 - f q)^2, where s0 is the absmax scale, f s0 the scale tried, q the code at that
/// scale and h_c the weight of column c (1 without column weights). inf and NaN count as 0. Sums are made in a fixed
/// order (16 lanes of float32, folded to float64), so results are the same bits at every instruction-set level.
namespace mezzotint::kernel {

/// Factors of the absmax scale that are tried, largest first. The first is 1.
inline constexpr int kScaleFactors = 15;
constexpr float kScaleFactor[kScaleFactors] = {1.0f,  0.97f, 0.94f, 0.91f, 0.88f, 0.85f, 0.82f, 0.79f,
                                               0.75f, 0.7f,  0.65f, 0.6f,  0.5f,  0.4f,  0.3f};

enum class ScaleSearch : uint8_t {
  /// Rounding errors of the factors below 1 are taken to be f^2 / 12 per element, but not more than at absmax, which is
  /// measured on a part of the elements; what clipping costs is exact near the best factor. Blocks of fewer than
  /// kFastSearchLeast elements keep their scale: they gain too little.
  fast,
  /// All errors are measured; then twice the least-squares scale of the codes, <q, w> / <q, q>, where that is better.
  full,
};
inline constexpr int64_t kFastSearchLeast = 8192;
/// Of the fast search: one chunk of 64 elements in so many of a block, or of a whole weight, is measured ...
inline constexpr int64_t kBlockSample = 8;
inline constexpr int64_t kWeightSample = 16;
/// ... and for a scale of many rows all with magnitudes beyond so many times 127 scales: when factors are compared, and
/// when the best is fitted.
inline constexpr float kHotFactor = 0.7f;
inline constexpr float kHotMoments = 1.25f;

/// Improves the scale of every block_rows x block_cols block (partial at the lower and right edge); a block of
/// 1 x cols is a row. scales[(r / block_rows) * stride + c / block_cols] holds absmax / 127, or `floor` where that is
/// larger, and is replaced; a scale that is not above the floor stays, and none falls below it. column_weight has
/// x.cols finite values >= 0, or is null.
void search_int8_blocks(const Source& x, int64_t block_rows, int64_t block_cols, const float* column_weight,
                        ScaleSearch search, float floor, float* scales, int64_t stride);

// A scale that more than one call contributes to (a whole weight in tiles): statistics of every row with the absmax
// scale, added up by the caller over all rows in a fixed order, and the choice from the sums.

/// Statistics per row of one search: errors of the factors, then the sum of the column weights.
inline constexpr int kScaleStats = kScaleFactors + 1;
/// stats[r * kScaleStats ...] of every row of x, in units of scale^2; row0 is the number of its first row in the
/// weight. row_amax[r] is the largest finite magnitude of row r of x (kernel::amax_rows); the fast search passes over
/// most of the rows that have nothing to clip. The same `search` must be given to best_scale_factor. `scale` must be at
/// least 1e-30. Fewer than 2^20 elements in all are too few to sample: search them in full.
void int8_scale_stats(const Source& x, int64_t row0, float scale, const float* row_amax, const float* column_weight,
                      ScaleSearch search, float* stats);
/// The factor of the absmax scale with the least error; 1 where none is better.
float best_scale_factor(const double* sums, ScaleSearch search);

/// Moments per row: error, <q, w> / s, <q, q>, at a given scale s (weighted).
inline constexpr int kScaleMoments = 3;
/// moments[r * kScaleMoments ...] of every row of x. The error is in units of scale^2. The fast search samples
/// as int8_scale_stats does.
void int8_scale_moments(const Source& x, int64_t row0, float scale, const float* row_amax, const float* column_weight,
                        ScaleSearch search, float* moments);
/// The factor of the scale that is the least-squares fit to its codes; 1 where all codes are 0. Rounding to nearest
/// again with scale * factor never gives a larger error than before (but for the rounding of the sums).
float least_squares_factor(const double* moments);

// One level of the above (search.isa.cpp).
template <Isa I>
void search_int8_blocks(const Source& x, int64_t block_rows, int64_t block_cols, const float* column_weight,
                        ScaleSearch search, float floor, float* scales, int64_t stride);
template <Isa I>
void int8_scale_stats(const Source& x, int64_t row0, float scale, const float* row_amax, const float* column_weight,
                      ScaleSearch search, float* stats);
template <Isa I>
void int8_scale_moments(const Source& x, int64_t row0, float scale, const float* row_amax, const float* column_weight,
                        ScaleSearch search, float* moments);

}  // namespace mezzotint::kernel
