#include <immintrin.h>

#include "mezzotint/kernel/gemm/peak_loop.h"

namespace mezzotint::kernel {

template <>
int64_t peak_int8<kIsa>(int64_t rounds) {
  const __m512i a = _mm512_set1_epi8(3);
  return 128 * peak_loop(rounds, a, [&](__m512i acc) MEZZOTINT_UNROLLED { return _mm512_dpbusd_epi32(acc, a, a); });
}

}  // namespace mezzotint::kernel
