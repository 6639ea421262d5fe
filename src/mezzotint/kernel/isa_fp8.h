#pragma once
// bf16 to 8-bit floats in vectors, for *.isa.cpp files: what a plain loop over SmallFloat::encode_saturating computes,
// in half the operations. Empty at levels without AVX2.
#include "mezzotint/base/small_float.h"
#include "mezzotint/kernel/isa_elements.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mezzotint::kernel {
namespace {

#if defined(__AVX2__)
#define MEZZOTINT_FP8_VECTORS 1
#if defined(__AVX512BW__)
constexpr int kFp8VectorBytes = 64;
#else
constexpr int kFp8VectorBytes = 32;
#endif
constexpr int64_t kFp8Step = kFp8VectorBytes / 2;  ///< elements at a time

typedef uint32_t U32s __attribute__((vector_size(kFp8VectorBytes)));
typedef int32_t I32s __attribute__((vector_size(kFp8VectorBytes)));
typedef float F32s __attribute__((vector_size(kFp8VectorBytes)));
typedef uint16_t U16s __attribute__((vector_size(kFp8VectorBytes / 2)));
typedef U32s U32sAnywhere __attribute__((aligned(1), may_alias));
typedef U16s U16sAnywhere __attribute__((aligned(1), may_alias));

/// Codes of magnitudes in the low byte of each lane, without the sign; bits above mean nothing.
///
/// With the exponent e of y, at least that of the smallest normal value, 2^(e + 23 - M) has the step of y's code as its
/// last bit: the sum rounds y to n such steps, nearest-even, and leaves n in its low bits. The code is
/// n + ((e - kMinExponent) << M), also where y is subnormal or n carries into the next exponent. The constant part of
/// it rides in the low bits of the addend.
template <class To>
[[gnu::always_inline]] inline U32s magnitude_codes(F32s y) {
  constexpr int32_t kAddend = (To::kShift << 23) + (-(To::kMinNormalBits >> To::kShift) & 0xFF);
  static_assert(kAddend % 2 == 0, "or ties would round to odd codes");
  const I32s all = (I32s)y & kFloatMagnitude;
  const I32s a = all > To::kMaxBits ? I32s{} + To::kMaxBits : all;
  const I32s exponent = (a > To::kMinNormalBits ? a : I32s{} + To::kMinNormalBits) & kFloatInfBits;
  const I32s sum = (I32s)((F32s)a + (F32s)(exponent + kAddend));
  const I32s code = sum + (exponent >> To::kShift);
  return (U32s)(all > kFloatInfBits ? I32s{} + To::kAllOnes : code);
}

/// Codes of kFp8Step bf16 values times a multiplier, whatever they are.
template <class To>
[[gnu::always_inline]] inline void encode_any_step(const Word* x, float multiplier, Byte* q) {
  // Two values to a lane: the lower one is shifted up, the upper one already is a float32.
  const U32s pair = *reinterpret_cast<const U32sAnywhere*>(x);
  const F32s even = (F32s)(pair << 16) * multiplier, odd = (F32s)(pair & 0xFFFF0000u) * multiplier;
  const U32s codes = (magnitude_codes<To>(even) & 0xFFu) | (magnitude_codes<To>(odd) << 8 & 0xFF00u);
  const U32s signs = ((U32s)even >> 24 & 0x80u) | ((U32s)odd >> 16 & 0x8000u);
  *reinterpret_cast<U16sAnywhere*>(q) = __builtin_convertvector(codes | signs, U16s);
}

// Most weights become normal codes, and of these the upper halves of the float32 values tell everything if their lowest
// bit also tells whether anything is set below: 16 bits a value instead of 32.
#if defined(__AVX512BW__)
typedef __m512i Words;
[[gnu::always_inline]] inline Words all_words(int x) {
  return _mm512_set1_epi16(static_cast<int16_t>(x));
}
[[gnu::always_inline]] inline Words load_words(const Word* x) {
  return _mm512_loadu_si512(x);
}
[[gnu::always_inline]] inline Words upper_halves(Words pair, float multiplier) {
  const __m512 m = _mm512_set1_ps(multiplier);
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
  const __m512i even = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), m));
  const __m512i odd = _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(_mm512_and_si512(pair, high)), m));
  // a ? b : c, bit by bit
  const __m512i upper = _mm512_ternarylogic_epi32(high, odd, _mm512_srli_epi32(even, 16), 0xCA);
  const __m512i lower = _mm512_ternarylogic_epi32(high, _mm512_slli_epi32(odd, 16), even, 0xCA);
  return _mm512_or_si512(upper, _mm512_min_epu16(lower, _mm512_set1_epi16(1)));
}
#else
typedef __m256i Words;
[[gnu::always_inline]] inline Words all_words(int x) {
  return _mm256_set1_epi16(static_cast<int16_t>(x));
}
[[gnu::always_inline]] inline Words load_words(const Word* x) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}
[[gnu::always_inline]] inline Words upper_halves(Words pair, float multiplier) {
  const __m256 m = _mm256_set1_ps(multiplier);
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
  const __m256i even = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)), m));
  const __m256i odd = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(_mm256_and_si256(pair, high)), m));
  const __m256i upper = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xAA);
  const __m256i lower = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA);
  return _mm256_or_si256(upper, _mm256_min_epu16(lower, _mm256_set1_epi16(1)));
}
#endif

template <class To>
constexpr int kLeastNormalWord = To::kMinNormalBits >> 16;

/// Codes of values in units of 2^k, given their upper halves; `least` holds those of the smallest normal value, that is
/// kLeastNormalWord + 128 k. False, and what is written means nothing, unless every code is normal and finite.
template <class To>
[[gnu::always_inline]] inline bool encode_normal_words(Words x, Words least, Byte* q) {
  constexpr int kDrop = To::kShift - 16, kHalf = 1 << (kDrop - 1);
  constexpr int kRange = (To::kMaxBits >> 16) + kHalf - 1 - kLeastNormalWord<To>;
  // From the smallest normal value's word to its code, and the rounding; ties need one more for odd codes.
  constexpr int kAddend = (1 << (To::kMantissaBits + kDrop)) + kHalf - 1;
#if defined(__AVX512BW__)
  const Words above = _mm512_sub_epi16(_mm512_and_si512(x, all_words(0x7FFF)), least);
  const bool normal = _mm512_cmpgt_epu16_mask(above, all_words(kRange)) == 0;
  const Words odd = _mm512_and_si512(_mm512_srli_epi16(x, kDrop), all_words(1));
  const Words sum = _mm512_add_epi16(_mm512_add_epi16(above, all_words(kAddend)), odd);
  // (sign & 0x80) | code
  const Words codes =
      _mm512_ternarylogic_epi32(_mm512_srli_epi16(x, 8), _mm512_srli_epi16(sum, kDrop), all_words(0x80), 0xEC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm512_cvtepi16_epi8(codes));
#else
  const Words above = _mm256_sub_epi16(_mm256_and_si256(x, all_words(0x7FFF)), least), range = all_words(kRange);
  const bool normal = _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(above, range), range)) == -1;
  const Words odd = _mm256_and_si256(_mm256_srli_epi16(x, kDrop), all_words(1));
  const Words sum = _mm256_add_epi16(_mm256_add_epi16(above, all_words(kAddend)), odd);
  const Words codes =
      _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 8), all_words(0x80)), _mm256_srli_epi16(sum, kDrop));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q),
                   _mm_packus_epi16(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)));
#endif
  return normal;
}

constexpr int64_t kFp8Steps = 64;    ///< done in one go
constexpr int64_t kFp8Ahead = 3072;  ///< asked for so many values ahead: the hardware's look-ahead stops with a page

/// Codes of up to kFp8Steps steps, `run` of which share a multiplier; bit i of the result: step i is still to be done.
/// A function of its own, as nothing beside the loop may keep the constants from staying in registers.
template <class To>
[[gnu::noinline]] uint64_t encode_normal_steps(const Word* x, int64_t steps, const float* multipliers, int64_t run,
                                               Byte* q) {
  uint64_t left = 0;
  for (int64_t i = 0; i < steps; ++multipliers) {
    const float multiplier = *multipliers;
    for (const int64_t end = smaller(i + run, steps); i < end; ++i) {
      __builtin_prefetch(x + i * kFp8Step + kFp8Ahead);
      const Words upper = upper_halves(load_words(x + i * kFp8Step), multiplier);
      const bool done = encode_normal_words<To>(upper, all_words(kLeastNormalWord<To>), q + i * kFp8Step);
      left |= static_cast<uint64_t>(!done) << i;
    }
  }
  return left;
}

/// The steps that are left.
template <class To>
[[gnu::noinline]] void encode_steps_left(uint64_t left, const Word* x, const float* multipliers, int64_t run, Byte* q) {
  for (; left != 0; left &= left - 1) {
    const int64_t i = __builtin_ctzll(left);
    encode_any_step<To>(x + i * kFp8Step, multipliers[i / run], q + i * kFp8Step);
  }
}

/// Codes of `steps` steps, where run <= kFp8Steps of them share a multiplier.
template <class To>
[[gnu::always_inline]] inline void encode_runs(const Word* x, int64_t steps, const float* multipliers, int64_t run,
                                               Byte* q) {
  for (const int64_t runs = kFp8Steps / run; steps > 0; steps -= runs * run, multipliers += runs) {
    const int64_t count = smaller(steps, runs * run);
    const uint64_t left = encode_normal_steps<To>(x, count, multipliers, run, q);
    if (left != 0) encode_steps_left<To>(left, x, multipliers, run, q);
    x += count * kFp8Step;
    q += count * kFp8Step;
  }
}

/// Codes of as many of the first n values, times a multiplier, as go in steps; returns how many.
template <class To>
[[gnu::always_inline]] inline int64_t encode_steps(const Word* x, int64_t n, float multiplier, Byte* q) {
  int64_t i = 0;
  for (; n - i >= kFp8Steps * kFp8Step; i += kFp8Steps * kFp8Step)
    encode_runs<To>(x + i, kFp8Steps, &multiplier, kFp8Steps, q + i);
  const int64_t rest = (n - i) / kFp8Step;
  encode_runs<To>(x + i, rest, &multiplier, kFp8Steps, q + i);
  return i + rest * kFp8Step;
}
#endif

}  // namespace
}  // namespace mezzotint::kernel
