#include "mezzotint/kernel/transpose.h"

#include <cassert>

namespace mezzotint::kernel {

void transpose(const void* src, int64_t rows, int64_t cols, int64_t src_stride, void* dst, int64_t dst_stride,
               int element_bytes) {
  assert(element_bytes == 1 || element_bytes == 2 || element_bytes == 4);
  with_isa([&]<Isa I> { transpose<I>(src, rows, cols, src_stride, dst, dst_stride, element_bytes); });
}

}  // namespace mezzotint::kernel
