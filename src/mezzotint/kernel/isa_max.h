#pragma once
// Largest 16-bit magnitude of short runs, for *.isa.cpp files. Empty at levels without AVX2.
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

#if defined(__AVX2__)
#define MEZZOTINT_MAX_VECTORS 1
#if defined(__AVX512BW__)
constexpr int64_t kMaxStep = 32;
#else
constexpr int64_t kMaxStep = 16;
#endif

/// Largest x[i] & 0x7FFF, i < n, where n is a positive multiple of kMaxStep. Asks for the memory 6 KiB further, because
/// the hardware's own look-ahead stops at the end of a page.
[[gnu::always_inline]] inline int32_t top_of_words(const Word* x, int64_t n) {
  constexpr int64_t kAhead = 3072;
#if defined(__AVX512BW__)
  const __m512i mask = _mm512_set1_epi16(0x7FFF);
  __m512i tops = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += kMaxStep) {
    __builtin_prefetch(x + i + kAhead);
    tops = _mm512_max_epi16(tops, _mm512_and_si512(_mm512_loadu_si512(x + i), mask));
  }
  const __m256i half = _mm256_max_epi16(_mm512_castsi512_si256(tops), _mm512_extracti64x4_epi64(tops, 1));
#else
  const __m256i mask = _mm256_set1_epi16(0x7FFF);
  __m256i half = _mm256_setzero_si256();
  for (int64_t i = 0; i < n; i += kMaxStep) {
    if (i % 32 == 0) __builtin_prefetch(x + i + kAhead);
    half = _mm256_max_epi16(half, _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i)), mask));
  }
#endif
  const __m128i eight = _mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  // The instruction knows only the smallest of eight.
  const __m128i most = _mm_set1_epi16(0x7FFF);
  return 0x7FFF - (_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_sub_epi16(most, eight))) & 0xFFFF);
}
#endif

#if defined(__AVX512BW__)
/// Largest magnitudes of sixteen blocks of kBlock (16 or 32) words, one to a lane: the halves of every step's registers
/// are compared until a block is one lane. Asks for memory ahead as above.
template <int64_t kBlock>
[[gnu::always_inline]] inline __m512i sixteen_tops(const Word* x) {
  static_assert(kBlock == 16 || kBlock == 32);
  constexpr int64_t kAhead = 3072;
  const __m512i mask = _mm512_set1_epi16(0x7FFF);
  const auto line = [&](int64_t i) __attribute__((always_inline)) {
    __builtin_prefetch(x + 32 * i + kAhead);
    return _mm512_and_si512(_mm512_loadu_si512(x + 32 * i), mask);
  };
  const auto halve = [](__m512i a, __m512i b) __attribute__((always_inline)) {
    return _mm512_max_epi16(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
  };
  const auto two_blocks = [&](int64_t i) __attribute__((always_inline)) {
    return kBlock == 16 ? line(i) : halve(line(2 * i), line(2 * i + 1));
  };
  __m512i four[4];  // four blocks of 8 words each
  for (int i = 0; i < 4; ++i) four[i] = halve(two_blocks(2 * i), two_blocks(2 * i + 1));
  __m512i eight[2];
  for (int i = 0; i < 2; ++i)
    eight[i] = _mm512_max_epi16(_mm512_unpacklo_epi64(four[2 * i], four[2 * i + 1]),
                                _mm512_unpackhi_epi64(four[2 * i], four[2 * i + 1]));
  const __m512 low = _mm512_castsi512_ps(eight[0]), high = _mm512_castsi512_ps(eight[1]);
  const __m512i two = _mm512_max_epi16(_mm512_castps_si512(_mm512_shuffle_ps(low, high, 0x88)),
                                       _mm512_castps_si512(_mm512_shuffle_ps(low, high, 0xDD)));
  const __m512i one = _mm512_and_si512(_mm512_max_epi16(two, _mm512_srli_epi32(two, 16)), _mm512_set1_epi32(0xFFFF));
  // Lane d of group L is block 4 d + L.
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), one);
}
#endif

}  // namespace
}  // namespace mezzotint::kernel
