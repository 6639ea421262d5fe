#include "mezzotint/kernel/search.h"

#include <cassert>

#include "mezzotint/kernel/search_choice.h"

namespace mezzotint::kernel {

void search_int8_blocks(const Source& x, int64_t block_rows, int64_t block_cols, const float* column_weight,
                        ScaleSearch search, float floor, float* scales, int64_t stride) {
  assert(block_rows > 0 && block_cols > 0 && floor >= 1e-30f);
  with_isa(
      [&]<Isa I> { search_int8_blocks<I>(x, block_rows, block_cols, column_weight, search, floor, scales, stride); });
}

void int8_scale_stats(const Source& x, int64_t row0, float scale, const float* row_amax, const float* column_weight,
                      ScaleSearch search, float* stats) {
  assert(scale >= 1e-30f);
  with_isa([&]<Isa I> { int8_scale_stats<I>(x, row0, scale, row_amax, column_weight, search, stats); });
}

float best_scale_factor(const double* sums, ScaleSearch search) {
  return kScaleFactor[best_factor(sums, search)];
}

void int8_scale_moments(const Source& x, int64_t row0, float scale, const float* row_amax, const float* column_weight,
                        ScaleSearch search, float* moments) {
  assert(scale >= 1e-30f);
  with_isa([&]<Isa I> { int8_scale_moments<I>(x, row0, scale, row_amax, column_weight, search, moments); });
}

float least_squares_factor(const double* moments) {
  return static_cast<float>(least_squares(moments));
}

}  // namespace mezzotint::kernel
