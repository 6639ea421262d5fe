#pragma once
// Included by ISA files: what the 256-bit levels of int8_dot.h have in common.
#include <immintrin.h>

#include "mezzotint/kernel/gemm/int8_dot.h"
#include "mezzotint/kernel/gemm/int8_finish.h"
#include "mezzotint/kernel/gemm/int8_stored.h"

namespace mezzotint::kernel {
namespace {

struct Vector256 {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int kLanes = 8, kVectors = 2, kTileRows = 6;
  static constexpr int64_t kStoredRows = 4;

  MEZZOTINT_INLINE Int load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  MEZZOTINT_INLINE void store(int32_t* p, Int v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  MEZZOTINT_INLINE Int broadcast(int32_t x) { return _mm256_set1_epi32(x); }
  MEZZOTINT_INLINE Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  MEZZOTINT_INLINE int32_t sum(Int v) {
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
  }

  MEZZOTINT_INLINE Float zero() { return _mm256_setzero_ps(); }
  MEZZOTINT_INLINE Float load_float(const float* p) { return _mm256_loadu_ps(p); }
  MEZZOTINT_INLINE void store_float(float* p, Float v) { _mm256_storeu_ps(p, v); }
  MEZZOTINT_INLINE Float broadcast_float(float x) { return _mm256_set1_ps(x); }
  MEZZOTINT_INLINE Float to_float(Int v) { return _mm256_cvtepi32_ps(v); }
  MEZZOTINT_INLINE Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }

  /// Lane i is the sum of v[i]'s lanes.
  MEZZOTINT_INLINE Int sums(const Int (&v)[8]) {
    Int t[2];  // [i]: lane 4 q + c is the sum over the 128-bit lane q of v[4 i + c]
    unrolled<2>([&]<int I>() MEZZOTINT_UNROLLED {
      const Int low = add(_mm256_unpacklo_epi32(v[4 * I], v[4 * I + 1]), _mm256_unpackhi_epi32(v[4 * I], v[4 * I + 1]));
      const Int high =
          add(_mm256_unpacklo_epi32(v[4 * I + 2], v[4 * I + 3]), _mm256_unpackhi_epi32(v[4 * I + 2], v[4 * I + 3]));
      t[I] = add(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
    });
    return add(_mm256_permute2x128_si256(t[0], t[1], 0x20), _mm256_permute2x128_si256(t[0], t[1], 0x31));
  }
  MEZZOTINT_INLINE void transpose(Int (&v)[8]) {
    Int t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
      t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {  // v[i + c]: columns c and 4 + c of the rows i .. i + 3
      v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
      v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
      v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
      v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      t[c] = _mm256_permute2x128_si256(v[c], v[4 + c], 0x20);
      t[4 + c] = _mm256_permute2x128_si256(v[c], v[4 + c], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) v[i] = t[i];
  }
  /// Eight codes at p.
  MEZZOTINT_INLINE __m128i eight(const int8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
};

}  // namespace
}  // namespace mezzotint::kernel
