#include <immintrin.h>

#include "mezzotint/kernel/gemm/peak_loop.h"

namespace mezzotint::kernel {

template <>
int64_t peak_int8<kIsa>(int64_t rounds) {
  __m256i a = _mm256_set1_epi16(3);
  // The product must not leave the loop: every round has an a of its own, for all that the compiler knows.
  return 32 * peak_loop(rounds, a, [&](__m256i acc) MEZZOTINT_UNROLLED {
           asm volatile("" : "+v"(a));
           return _mm256_add_epi32(acc, _mm256_madd_epi16(a, a));
         });
}

}  // namespace mezzotint::kernel
