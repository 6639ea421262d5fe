#pragma once
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Largest magnitudes. inf and NaN are left out of the maximum and reported beside it. Results are exact, so they are
/// the same at every instruction-set level and for every split of the work.
namespace mezzotint::kernel {

struct Amax {
  float value = 0;          ///< max |x| over finite elements; 0 if there are none
  bool non_finite = false;  ///< whether an inf or NaN was seen
};

/// Of the whole matrix.
Amax amax(const Source& x);

/// out[r] = amax of row r. Returns whether an inf or NaN was seen in any row.
bool amax_rows(const Source& x, float* out);

/// out[(r / block_rows) * out_stride + c / block_cols] = amax of each block_rows x block_cols block of the matrix;
/// blocks at the lower and right edge may be partial. Returns whether an inf or NaN was seen anywhere.
bool amax_blocks(const Source& x, int64_t block_rows, int64_t block_cols, float* out, int64_t out_stride);

// One level of the above (reduce.isa.cpp).
template <Isa I>
Amax amax(const Source& x);
template <Isa I>
bool amax_rows(const Source& x, float* out);
template <Isa I>
bool amax_blocks(const Source& x, int64_t block_rows, int64_t block_cols, float* out, int64_t out_stride);

}  // namespace mezzotint::kernel
