#include "mezzotint/kernel/gemm/peak_loop.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mezzotint::kernel {

template <>
int64_t peak_f32<kIsa>(int64_t rounds) {
#if defined(__AVX512F__)
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
  return 32 * peak_loop(rounds, b, [&](__m512 acc) MEZZOTINT_UNROLLED { return _mm512_fmadd_ps(acc, a, b); });
#elif defined(__AVX2__)
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
  return 16 * peak_loop(rounds, b, [&](__m256 acc) MEZZOTINT_UNROLLED { return _mm256_fmadd_ps(acc, a, b); });
#else
  typedef float Four __attribute__((vector_size(16)));
  const Four a = {0.5f, 0.5f, 0.5f, 0.5f}, b = {1, 1, 1, 1};
  return 8 * peak_loop(rounds, b, [&](Four acc) MEZZOTINT_UNROLLED { return acc * a + b; });
#endif
}

}  // namespace mezzotint::kernel
