#pragma once
#include <cstdint>

#include "mezzotint/kernel/isa.h"

/// Fast Hadamard transforms, in place on float32. Each is a product of additions in one fixed order, so the results are
/// the same bits at every instruction-set level, for every split into calls, and for every number of threads. Both are
/// symmetric and orthonormal, hence their own inverse: the same call rotates and rotates back.
///
/// The scale 1 / sqrt(group) is applied first; for powers of 4 it is a power of two, so that every rounding is one of
/// an addition (subnormals aside). An element comes out as a sum of `group` inputs added pairwise, 2 additions per
/// radix-4 step: with u = 2^-24, |error| <= 2 * log4(group) * u * sum |x| / sqrt(group), to first order. One inf or NaN
/// makes every element of its group inf or NaN.
namespace mezzotint::kernel {

inline constexpr int64_t kLargestConvrotGroup = 4096;

/// Whether ConvRot's rotation exists for this group size: a power of 4 from 4 to 4096.
constexpr bool is_convrot_group(int64_t group) {
  if (group < 4 || group > kLargestConvrotGroup || (group & (group - 1)) != 0) return false;
  return (group & 0x5555) != 0;
}

/// ConvRot: multiplies every `group` consecutive values by H4 x H4 x ... / sqrt(group) (Kronecker product), where H4 is
/// [[1,1,1,-1],[1,1,-1,1],[1,-1,1,1],[-1,1,1,1]]. Element (i, j) is -1 to the number of base-4 digits of i and j that
/// add up to 3, over sqrt(group). `count` is a multiple of `group`, which passes is_convrot_group: whole rows of a
/// packed matrix are one call.
void rotate_convrot(float* values, int64_t count, int64_t group);

/// Sylvester's Hadamard matrix, (-1)^popcount(i & j) / sqrt(group), for any power of two. `values` is an array
/// [count / (group * inner), group, inner], transformed along its middle dimension: inner = 1 transforms runs of
/// values, inner = cols the columns of a matrix with `group` rows.
void rotate_sylvester(float* values, int64_t count, int64_t group, int64_t inner = 1);

// One level of the above (hadamard.isa.cpp).
template <Isa I>
void rotate_convrot(float* values, int64_t count, int64_t group);
template <Isa I>
void rotate_sylvester(float* values, int64_t count, int64_t group, int64_t inner);

}  // namespace mezzotint::kernel
