#pragma once
// Sixteen blocks of bf16 of fp4.isa.cpp with AVX-512, 32 columns to a register and without a division. Internal
// linkage, for that file alone.
#include <immintrin.h>

#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// The bits of the smallest bf16 magnitudes with the codes 1 to 7.
struct CodeBounds {
  __m512i blocks[4];  // the eight words of blocks 4 j to 4 j + 3; the first word means nothing
};

/// A code begins at the middle h between two values: at float32(x / t) >= h where the code is even, beyond h where it
/// is odd. With u, half the distance of float32 values at h, that is x >= t * (h - u) and x > t * (h + u). Both are so
/// near to t * h that only the bf16 value nearest to it or the next one can be the first x beyond, and x - t * h is
/// exact where it decides. t between 2^-60 and 2^60.
[[gnu::always_inline]] inline CodeBounds code_bounds(__m512 t) {
  // Lane j of group L becomes block 4 j + L.
  t = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), t);
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)), next = _mm512_set1_epi32(0x10000);
  const auto nearest = [&](float h) __attribute__((always_inline)) {
    const __m512i product = _mm512_castps_si512(_mm512_mul_ps(t, _mm512_set1_ps(h)));
    return _mm512_add_epi32(product, _mm512_set1_epi32(0x8000));  // the high half
  };
  const auto even = [&](float h, float u) __attribute__((always_inline)) {
    const __m512i x = nearest(h);
    const __m512 missing = _mm512_fmsub_ps(t, _mm512_set1_ps(h), _mm512_castsi512_ps(_mm512_and_si512(x, high)));
    const __mmask16 up = _mm512_cmp_ps_mask(missing, _mm512_mul_ps(t, _mm512_set1_ps(u)), _CMP_GT_OQ);
    return _mm512_mask_add_epi32(x, up, x, next);
  };
  const auto odd = [&](float h, float u) __attribute__((always_inline)) {
    const __m512i x = nearest(h);
    const __m512 over = _mm512_fnmadd_ps(t, _mm512_set1_ps(h), _mm512_castsi512_ps(_mm512_and_si512(x, high)));
    const __mmask16 up = _mm512_cmp_ps_mask(over, _mm512_mul_ps(t, _mm512_set1_ps(u)), _CMP_LE_OQ);
    return _mm512_mask_add_epi32(x, up, x, next);
  };
  const auto pair = [&](const __m512i& low, const __m512i& upper) __attribute__((always_inline)) {
    return _mm512_ternarylogic_epi32(high, upper, _mm512_srli_epi32(low, 16), 0xCA);
  };
  // From 1.25 on, the middles repeat in the next powers of two.
  const __m512i from_one = odd(1.25f, 0x1p-24f), twice = _mm512_set1_epi32(0x00800000);
  const __m512i a = odd(0.25f, 0x1p-26f);
  const __m512i b = pair(even(0.75f, 0x1p-25f), from_one);                           // 0.75, 1.25
  const __m512i c = pair(even(1.75f, 0x1p-24f), _mm512_add_epi32(from_one, twice));  // 1.75, 2.5
  const __m512i d = _mm512_add_epi32(c, _mm512_set1_epi32(0x00800080));              // 3.5, 5
  const __m512i ab = _mm512_unpacklo_epi32(a, b), ab2 = _mm512_unpackhi_epi32(a, b);
  const __m512i cd = _mm512_unpacklo_epi32(c, d), cd2 = _mm512_unpackhi_epi32(c, d);
  return {{_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd), _mm512_unpacklo_epi64(ab2, cd2),
           _mm512_unpackhi_epi64(ab2, cd2)}};
}

/// Codes of two blocks in 16 bytes; `base`: where in `bounds` the eight words of each column's block begin. The code is
/// found by bisection: bound 4, then 2 or 6, then an odd one, whose number or the one before is the code.
[[gnu::always_inline]] inline __m128i encode_two_blocks(__m512i x, __m512i bounds, __m512i base) {
  const __m512i a = _mm512_and_si512(x, _mm512_set1_epi16(0x7FFF));
  const auto reaches = [&](__m512i at) __attribute__((always_inline)) {
    return _mm512_cmpge_epi16_mask(a, _mm512_permutexvar_epi16(at, bounds));
  };
  const __m512i one = _mm512_set1_epi16(1), two = _mm512_set1_epi16(2);
  const __mmask32 upper = reaches(_mm512_add_epi16(base, _mm512_set1_epi16(4)));
  __m512i at = _mm512_mask_add_epi16(_mm512_add_epi16(base, two), upper, base, _mm512_set1_epi16(6));
  const __m512i before = _mm512_sub_epi16(at, one);
  at = _mm512_mask_add_epi16(before, reaches(at), before, two);
  const __m512i below = _mm512_sub_epi16(at, one);
  const __m512i code = _mm512_mask_mov_epi16(below, reaches(at), at);
  // (code & 7) | (sign & 8), then the even column's 16-fold beside the odd one's.
  const __m512i codes = _mm512_ternarylogic_epi32(code, _mm512_srli_epi16(x, 12), _mm512_set1_epi16(7), 0xE4);
  return _mm512_cvtepi32_epi8(_mm512_madd_epi16(codes, _mm512_set1_epi32(0x00010010)));
}

[[gnu::always_inline]] inline void encode_sixteen_blocks(const Word* x, const CodeBounds& bounds, Byte* out) {
  const __m512i sixteen = _mm512_set1_epi16(16);
  const __m512i first = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(8), 1);
  const __m512i second = _mm512_add_epi16(first, sixteen);
  for (int j = 0; j < 4; ++j) {
    __builtin_prefetch(x + 512 + 64 * j);
    __builtin_prefetch(x + 512 + 64 * j + 32);
    const __m512i low = _mm512_loadu_si512(x + 64 * j), high = _mm512_loadu_si512(x + 64 * j + 32);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32 * j), encode_two_blocks(low, bounds.blocks[j], first));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 32 * j + 16), encode_two_blocks(high, bounds.blocks[j], second));
  }
}

}  // namespace
}  // namespace mezzotint::kernel
