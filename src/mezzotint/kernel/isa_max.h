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

}  // namespace
}  // namespace mezzotint::kernel
