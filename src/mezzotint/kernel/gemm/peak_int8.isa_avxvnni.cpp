#include <immintrin.h>

#include "mezzotint/kernel/gemm/peak_loop.h"

namespace mezzotint::kernel {

template <>
int64_t peak_int8<kIsa>(int64_t rounds) {
  const __m256i a = _mm256_set1_epi8(3);
  return 64 * peak_loop(rounds, a, [&](__m256i acc) MEZZOTINT_UNROLLED { return _mm256_dpbusd_avx_epi32(acc, a, a); });
}

}  // namespace mezzotint::kernel
