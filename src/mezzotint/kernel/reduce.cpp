#include "mezzotint/kernel/reduce.h"

#include <cassert>

namespace mezzotint::kernel {

Amax amax(const Source& x) {
  return with_isa([&]<Isa I> { return amax<I>(x); });
}

bool amax_rows(const Source& x, float* out) {
  return with_isa([&]<Isa I> { return amax_rows<I>(x, out); });
}

bool amax_blocks(const Source& x, int64_t block_rows, int64_t block_cols, float* out, int64_t out_stride) {
  assert(block_rows > 0 && block_cols > 0);
  return with_isa([&]<Isa I> { return amax_blocks<I>(x, block_rows, block_cols, out, out_stride); });
}

}  // namespace mezzotint::kernel
