#pragma once
// Codes times a scale straight to bf16, for *.isa.cpp files: what decoding to float32 and kernel::cast give, without
// the trip through memory. Everything has internal linkage or is always inlined, see isa_elements.h.
#include "mezzotint/kernel/isa_elements.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mezzotint::kernel {
namespace {

/// What a kernel writes: float32, or bf16 as bits.
[[gnu::always_inline]] inline Dword* elements(float* out) {
  return reinterpret_cast<Dword*>(out);
}
[[gnu::always_inline]] inline Word* elements(uint16_t* out) {
  return reinterpret_cast<Word*>(out);
}
[[gnu::always_inline]] inline void store_value(float x, Dword& out) {
  out = float_bits(x);
}
[[gnu::always_inline]] inline void store_value(float x, Word& out) {
  out = static_cast<uint16_t>(Bf16::encode(x));
}

[[gnu::always_inline]] inline bool is_finite(float x) {
  return static_cast<int32_t>(float_bits(x) & kFloatMagnitude) < kFloatInfBits;
}

#if defined(__AVX2__)
#define MEZZOTINT_BF16_VECTORS 1

// Codes become f16 values by shifts or a table, and the processor widens those exactly, subnormals included.
#if defined(__AVX512BW__)
constexpr int64_t kBf16Step = 32;  ///< values at a time
typedef __m512 Floats;             ///< half of them
typedef __m512i Halves;            ///< f16 bits of all of them
#else
constexpr int64_t kBf16Step = 16;
typedef __m256 Floats;
typedef __m256i Halves;
#endif

struct FloatPair {
  Floats low, high;
};

#if defined(__AVX512BW__)
[[gnu::always_inline]] inline __m512i round_to_high_half(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
}
/// out[i] = bf16(x * scale), nearest-even. The scales must be finite: NaN, which then comes from a code or is the
/// processor's own, has no low bits that could carry.
[[gnu::always_inline]] inline void store_products(FloatPair x, float low, float high, Word* out) {
  alignas(64) static constexpr uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                      33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512i a = round_to_high_half(_mm512_mul_ps(x.low, _mm512_set1_ps(low)));
  const __m512i b = round_to_high_half(_mm512_mul_ps(x.high, _mm512_set1_ps(high)));
  _mm512_storeu_si512(out, _mm512_permutex2var_epi16(a, _mm512_load_si512(kUpper), b));
}
[[gnu::always_inline]] inline FloatPair widen(Halves x) {
  return {_mm512_cvtph_ps(_mm512_castsi512_si256(x)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1))};
}
/// The codes, sign-extended.
[[gnu::always_inline]] inline Halves load_codes(const Byte* codes) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
}
#else
[[gnu::always_inline]] inline __m256i round_to_low_half(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
}
[[gnu::always_inline]] inline void store_products(FloatPair x, float low, float high, Word* out) {
  const __m256i a = round_to_low_half(_mm256_mul_ps(x.low, _mm256_set1_ps(low)));
  const __m256i b = round_to_low_half(_mm256_mul_ps(x.high, _mm256_set1_ps(high)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8));
}
[[gnu::always_inline]] inline FloatPair widen(Halves x) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(x)), _mm256_cvtph_ps(_mm256_extracti128_si256(x, 1))};
}
[[gnu::always_inline]] inline Halves load_codes(const Byte* codes) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}
#endif

/// kBf16Step codes as float32 values divided by kUnit.
struct E4m3Vector {
  static constexpr float kUnit = 256;  // E4M3's exponent is biased by 7, that of f16 by 15
  [[gnu::always_inline]] static FloatPair load(const Byte* from) {
    const Halves codes = load_codes(from);
#if defined(__AVX512BW__)
    const __mmask32 number =
        _mm512_test_epi16_mask(_mm512_andnot_si512(codes, _mm512_set1_epi16(0x7F)), _mm512_set1_epi16(0x7F));
    const Halves halves = _mm512_and_si512(_mm512_slli_epi16(codes, 7), _mm512_set1_epi16(-0x4080));
    const Halves nan = _mm512_maskz_set1_epi16(static_cast<__mmask32>(~number), 0x7C00);
    return widen(_mm512_or_si512(halves, nan));
#else
    const Halves ones = _mm256_set1_epi16(-1);
    const Halves nan = _mm256_cmpeq_epi16(_mm256_or_si256(codes, _mm256_set1_epi16(-0x80)), ones);
    const Halves halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16(-0x4080));
    return widen(_mm256_or_si256(halves, _mm256_and_si256(nan, _mm256_set1_epi16(0x7C00))));
#endif
  }
};
struct E5m2Vector {
  static constexpr float kUnit = 1;  // the upper byte of an f16 value
  [[gnu::always_inline]] static FloatPair load(const Byte* from) {
#if defined(__AVX512BW__)
    return widen(_mm512_slli_epi16(load_codes(from), 8));
#else
    return widen(_mm256_slli_epi16(load_codes(from), 8));
#endif
  }
};
struct Int8Vector {
  static constexpr float kUnit = 1;
  [[gnu::always_inline]] static FloatPair load(const Byte* from) {
    const auto* half = reinterpret_cast<const __m128i*>(from + kBf16Step / 2);
#if defined(__AVX512BW__)
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))),
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(half)))};
#else
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(half)))};
#endif
  }
};
/// Two codes to a byte, the first in the upper nibble.
struct E2m1Vector {
  [[gnu::always_inline]] static FloatPair load(const Byte* from) {
    // Upper bytes of the f16 values 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives; the lower bytes are 0.
    const __m128i table = _mm_setr_epi8(0, 0x38, 0x3C, 0x3E, 0x40, 0x42, 0x44, 0x46, -0x80, -0x48, -0x44, -0x42, -0x40,
                                        -0x3E, -0x3C, -0x3A);
    const __m128i nibble = _mm_set1_epi8(15);
#if defined(__AVX512BW__)
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
#else
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
#endif
    const __m128i first = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
    const __m128i second = _mm_shuffle_epi8(table, _mm_and_si128(bytes, nibble));
    const __m128i low = _mm_unpacklo_epi8(first, second);
#if defined(__AVX512BW__)
    const __m256i all = _mm256_set_m128i(_mm_unpackhi_epi8(first, second), low);
    return widen(_mm512_slli_epi16(_mm512_cvtepu8_epi16(all), 8));
#else
    return widen(_mm256_slli_epi16(_mm256_cvtepu8_epi16(low), 8));
#endif
  }
};

/// out[i] = bf16(code * scale) for as many of the first codes as go in vectors; returns how many. None where the scale
/// does not allow it.
template <class Vector>
[[gnu::always_inline]] inline int64_t store_scaled_bf16(const Byte* __restrict codes, int64_t n, float scale,
                                                        Word* __restrict out) {
  const float unit = scale * Vector::kUnit;  // exact: a power of two
  if (!is_finite(unit)) return 0;
  int64_t i = 0;
  for (; i + kBf16Step <= n; i += kBf16Step) store_products(Vector::load(codes + i), unit, unit, out + i);
  return i;
}
#endif

}  // namespace
}  // namespace mezzotint::kernel
