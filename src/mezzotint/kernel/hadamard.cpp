#include "mezzotint/kernel/hadamard.h"

#include <cassert>

namespace mezzotint::kernel {

void rotate_convrot(float* values, int64_t count, int64_t group) {
  assert(is_convrot_group(group) && count % group == 0);
  with_isa([&]<Isa I> { rotate_convrot<I>(values, count, group); });
}

void rotate_sylvester(float* values, int64_t count, int64_t group, int64_t inner) {
  assert(group > 0 && (group & (group - 1)) == 0 && inner > 0 && count % (group * inner) == 0);
  with_isa([&]<Isa I> { rotate_sylvester<I>(values, count, group, inner); });
}

}  // namespace mezzotint::kernel
