#include "mezzotint/kernel/cast.h"

namespace mezzotint::kernel {

void cast(const Source& x, DType to, void* dst, int64_t dst_stride, Overflow overflow) {
  with_isa([&]<Isa I> { cast<I>(x, to, dst, dst_stride, overflow); });
}

}  // namespace mezzotint::kernel
