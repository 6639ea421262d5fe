#pragma once
// Whole blocks of fp4.isa.cpp with AVX-512, 16 columns to a register. Internal linkage, for that file alone.
#include <immintrin.h>

#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

template <class From>
[[gnu::always_inline]] inline __m512 load_block(const typename From::Stored* x);
template <>
[[gnu::always_inline]] inline __m512 load_block<F32Element>(const Dword* x) {
  return _mm512_loadu_ps(x);
}
template <>
[[gnu::always_inline]] inline __m512 load_block<Bf16Element>(const Word* x) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}
template <>
[[gnu::always_inline]] inline __m512 load_block<F16Element>(const Word* x) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
}

/// Codes of one block in 8 bytes. The division as in `quotient`, of |x|; the code is E2m1::encode's: adding
/// 1.5 * 2^22 * 2^e leaves the multiple of 2^(e - 1) in the low bits of the sum, and a code counts two more for every
/// e.
[[gnu::always_inline]] inline __m128i encode_block(__m512 x, __m512 t, __m512 reciprocal) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512 a = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(kFloatMagnitude)));
  __m512 q = _mm512_mul_ps(a, reciprocal);
  q = _mm512_fmadd_ps(_mm512_fnmadd_ps(q, t, a), reciprocal, q);
  q = _mm512_fmadd_ps(_mm512_fnmadd_ps(q, t, a), reciprocal, q);
  q = _mm512_min_ps(q, _mm512_set1_ps(6.0f));  // the second operand where q is NaN
  const __m512i one = _mm512_set1_epi32(0x3F800000);
  const __m512i power =
      _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(q), _mm512_set1_epi32(kFloatInfBits)), one);
  // 2 more in the low bits: twice the exponent is power >> 22 less 254, of which only the low three bits count.
  const __m512i magic = _mm512_add_epi32(power, _mm512_set1_epi32((22 << 23) + 0x400002));
  const __m512i sum = _mm512_castps_si512(_mm512_add_ps(q, _mm512_castsi512_ps(magic)));
  const __m512i magnitude = _mm512_add_epi32(sum, _mm512_srli_epi32(power, 22));
  // (magnitude & 7) | (sign & 8)
  const __m512i codes = _mm512_ternarylogic_epi32(magnitude, _mm512_srli_epi32(bits, 28), _mm512_set1_epi32(7), 0xE4);
  const __m512i pairs = _mm512_or_si512(_mm512_slli_epi64(codes, 4), _mm512_srli_epi64(codes, 32));
  return _mm512_cvtepi64_epi8(pairs);
}

/// Codes of sixteen blocks.
template <class From>
[[gnu::always_inline]] inline void encode_sixteen_blocks(const typename From::Stored* x, __m512 t, Byte* out) {
  alignas(64) float factors[16], reciprocals[16];
  _mm512_store_ps(factors, t);
  _mm512_store_ps(reciprocals, _mm512_div_ps(_mm512_set1_ps(1.0f), t));
  for (int64_t b = 0; b < 16; ++b) {
    const __m128i codes =
        encode_block(load_block<From>(x + b * 16), _mm512_set1_ps(factors[b]), _mm512_set1_ps(reciprocals[b]));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + b * 8), codes);
  }
}

/// Values of 8 bytes of codes.
[[gnu::always_inline]] inline __m512 decode_block(const Byte* codes) {
  const __m512 values = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f,
                                       -2.0f, -3.0f, -4.0f, -6.0f);
  const __m512i bytes = _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  // High nibble in the even lanes; in the odd ones the whole byte, of which the permutation sees the low nibble.
  const __m512i nibbles = _mm512_or_si512(_mm512_srli_epi64(bytes, 4), _mm512_slli_epi64(bytes, 32));
  return _mm512_permutexvar_ps(nibbles, values);
}

}  // namespace
}  // namespace mezzotint::kernel
