#include "mezzotint/kernel/error_sums.h"

namespace mezzotint::kernel {

void add_errors(const float* a, const float* b, int64_t n, ErrorSums& sums) {
  with_isa([&]<Isa I> { add_errors<I>(a, b, n, sums); });
}

}  // namespace mezzotint::kernel
