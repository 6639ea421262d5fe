#pragma once
// Included by ISA files: what the 512-bit levels of int8_dot.h have in common.
#include <immintrin.h>

#include "mezzotint/kernel/gemm/int8_dot.h"
#include "mezzotint/kernel/gemm/int8_stored.h"

namespace mezzotint::kernel {
namespace {

struct Vector512 {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int kLanes = 16, kGroup = 4;

  MEZZOTINT_INLINE Int load(const int32_t* p) { return _mm512_loadu_si512(p); }
  MEZZOTINT_INLINE void store(int32_t* p, Int v) { _mm512_storeu_si512(p, v); }
  MEZZOTINT_INLINE Int broadcast(int32_t x) { return _mm512_set1_epi32(x); }
  MEZZOTINT_INLINE Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  MEZZOTINT_INLINE int32_t sum(Int v) { return _mm512_reduce_add_epi32(v); }

  MEZZOTINT_INLINE Float zero() { return _mm512_setzero_ps(); }
  MEZZOTINT_INLINE Float load_float(const float* p) { return _mm512_loadu_ps(p); }
  MEZZOTINT_INLINE void store_float(float* p, Float v) { _mm512_storeu_ps(p, v); }
  MEZZOTINT_INLINE Float broadcast_float(float x) { return _mm512_set1_ps(x); }
  MEZZOTINT_INLINE Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
  MEZZOTINT_INLINE Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }

  MEZZOTINT_INLINE Int load_rows(const int8_t* p) { return _mm512_loadu_si512(p); }
  MEZZOTINT_INLINE int32_t group(const int8_t* p, int64_t n) {
    int32_t codes = 0;
    __builtin_memcpy(&codes, p, static_cast<size_t>(n));
    return codes;
  }
  /// The groups of kLanes columns whose depth steps are `step` bytes apart.
  MEZZOTINT_INLINE Int interleaved(const int8_t* p, int64_t step) {
    const auto row = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * step)); };
    const __m128i r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
    const __m128i low01 = _mm_unpacklo_epi8(r0, r1), high01 = _mm_unpackhi_epi8(r0, r1);
    const __m128i low23 = _mm_unpacklo_epi8(r2, r3), high23 = _mm_unpackhi_epi8(r2, r3);
    const __m256i low = _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23), _mm_unpacklo_epi16(low01, low23));
    const __m256i high = _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23), _mm_unpacklo_epi16(high01, high23));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  }
  /// Lane i is the sum of v[i]'s lanes.
  MEZZOTINT_INLINE Int sums(const Int (&v)[16]) {
    Int t[4];  // [i]: lane 4 q + c is the sum over the 128-bit lane q of v[4 i + c]
    unrolled<4>([&]<int I>() MEZZOTINT_UNROLLED {
      const Int low = add(_mm512_unpacklo_epi32(v[4 * I], v[4 * I + 1]), _mm512_unpackhi_epi32(v[4 * I], v[4 * I + 1]));
      const Int high =
          add(_mm512_unpacklo_epi32(v[4 * I + 2], v[4 * I + 3]), _mm512_unpackhi_epi32(v[4 * I + 2], v[4 * I + 3]));
      t[I] = add(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
    });
    const Int t01 = add(_mm512_shuffle_i32x4(t[0], t[1], 0x88), _mm512_shuffle_i32x4(t[0], t[1], 0xDD));
    const Int t23 = add(_mm512_shuffle_i32x4(t[2], t[3], 0x88), _mm512_shuffle_i32x4(t[2], t[3], 0xDD));
    return add(_mm512_shuffle_i32x4(t01, t23, 0x88), _mm512_shuffle_i32x4(t01, t23, 0xDD));
  }
  /// v[i] lane j becomes v[j] lane i.
  MEZZOTINT_INLINE void transpose(Int (&v)[16]) {
    Int t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // v[i + c]: column c of every 4 x 4 of the rows i .. i + 3
      v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
      v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
      v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
      v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const Int low01 = _mm512_shuffle_i32x4(v[c], v[4 + c], 0x88), high01 = _mm512_shuffle_i32x4(v[c], v[4 + c], 0xDD);
      const Int low23 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0x88);
      const Int high23 = _mm512_shuffle_i32x4(v[8 + c], v[12 + c], 0xDD);
      t[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
      t[8 + c] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
      t[4 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
      t[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = t[i];
  }
};

}  // namespace
}  // namespace mezzotint::kernel
