#pragma once
#include <cstdint>

#include "mezzotint/kernel/isa.h"

/// Rounding with error feedback: the loop that LDLQ (= GPTQ) and coordinate descent have in common.
namespace mezzotint::kernel {

/// The values that a code can take, before its scale: multiples of 2^(max(floor(log2 |t|), min_exponent) -
/// mantissa_bits) within [lowest, largest]. A floating-point format has its own mantissa bits and least normal exponent
/// (e4m3: 3, -6; e2m1: 1, 0); integers are {23, 23}.
struct Grid {
  int32_t mantissa_bits = 23, min_exponent = 23;
  float lowest = -127.0f, largest = 127.0f;
};

/// Columns of one block, which are rounded one after another; everything before a block is a matrix product.
inline constexpr int64_t kFeedbackColumns = 128;
/// Rows are handled in groups of this many.
inline constexpr int64_t kFeedbackRows = 16;

/// Columns are rounded from the last to the first. All matrices are column-major: row r of column p lies at
/// p * stride + r; `rows` is a multiple of kFeedbackRows. Of column p:
///
///     v = base[p] - inverse_pivot[p] * (carried[p] + sum over q > p of coupling[p][q] * change[q])
///     q = the point of the grid nearest to v / scale, ties to even, times scale      (0 where the scale is 0)
///     change[p] = q - base[p]
///
/// and energy[r] += pivot_energy[p] * (q - v)^2. LDLQ: base = weights, coupling = L', carried = E L of the columns
/// before; then the energy adds up to the row's e H e' with H = L L', pivot_energy[p] = L[p][p]^2. Coordinate descent:
/// base = the rounded weights of before, coupling = H, carried = E H; with pivot_energy[p] = H[p][p] and
/// `energy_of_change`, which subtracts pivot_energy[p] * (base - v)^2, the energy is the change of e H e'.
struct FeedbackBlock {
  int64_t columns = 0;  ///< up to kFeedbackColumns
  int64_t rows = 0;
  int64_t base_stride = 0;
  int64_t stride = 0;  ///< of carried and change
  const float* base = nullptr;
  const float* carried = nullptr;
  const float* coupling = nullptr;              ///< [columns][kFeedbackColumns]
  const float* inverse_pivot = nullptr;         ///< [columns]
  const float* const* scale = nullptr;          ///< [columns] pointers to `rows` scales
  const float* const* inverse_scale = nullptr;  ///< their inverses, 0 for 0
  Grid grid;
  /// Whether v is rounded. If not, base is (plain rounding), and only the energy knows about feedback.
  bool feedback = true;
  float* change = nullptr;  ///< must overlap nothing else
  const float* pivot_energy = nullptr;
  float* energy = nullptr;  ///< [rows]
  bool energy_of_change = false;
};

/// Every operation is rounded on its own: the same bits at every level.
void round_with_feedback(const FeedbackBlock& block);

// One level of the above (feedback.isa.cpp).
template <Isa I>
void round_with_feedback(const FeedbackBlock& block);

}  // namespace mezzotint::kernel
