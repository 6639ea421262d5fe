#include <immintrin.h>

#include "mezzotint/kernel/gemm/peak_loop.h"

namespace mezzotint::kernel {

template <>
int64_t peak_bf16<kIsa>(int64_t rounds) {
  const __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3F003F00));  // 0.5
  return 64 * peak_loop(rounds, _mm512_set1_ps(1.0f),
                        [&](__m512 acc) MEZZOTINT_UNROLLED { return _mm512_dpbf16_ps(acc, a, a); });
}

}  // namespace mezzotint::kernel
