#pragma once
// Nearest-even int8 codes of quotients without a division per element, for *.isa.cpp files. Empty at levels without
// AVX2. Everything has internal linkage or is always inlined, see isa_elements.h.
#include "mezzotint/kernel/isa_elements.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mezzotint::kernel {
namespace {

#if defined(__AVX2__)
#define MEZZOTINT_INT8_VECTORS 1

#if defined(__AVX512BW__)
constexpr int64_t kInt8Step = 64;  ///< codes at a time
typedef __m512 QuotientFloats;     ///< a quarter of them
typedef __m512i QuotientBits;
#else
constexpr int64_t kInt8Step = 32;
typedef __m256 QuotientFloats;
typedef __m256i QuotientBits;
#endif

/// The same bits as x / scale, from y = 1 / scale (rounded): q = x y, then q + (x - q scale) y, each rounded once.
///
/// Why (Markstein's theorem; significands a, b in [1, 2) of x and scale, u = 2^-24): |y - 1/b| <= u/2, so q is off by
/// d <= a u/2 + half a unit in the last place. Where the remainder x - q b is exact, the last sum before its rounding
/// is a/b + d (1 - b y), off by at most |d| b u/2; a/b, which is never a midpoint between floats, is at least u^2/b
/// (2 u^2/b for a >= b) away from each. Only two kinds of midpoints are near enough to be crossed. Half a unit from q:
/// d is half a unit there, and b^2 < 4 makes the error the smaller of the two. One and a half units from q, for a < b
/// only: a and b must then be within 2^-20 of 2, and there a/b is nearly a float, far from midpoints. Remainders of
/// more than a unit are rounded, which costs another 2^-24 of a unit and changes nothing in that.
///
/// It needs a remainder that does not underflow (scale >= 2^-100, or quotients so small that their code is 0 anyway)
/// and a product that does not overflow; Divisor::limit sees to that.
struct Divisor {
  float scale, reciprocal;
  float limit;  ///< magnitudes up to here may be divided so; their quotients fit in 16 bits

  /// Whether there is one for a scale: not for 0, negative, very small or large ones, inf and NaN.
  [[gnu::always_inline]] static bool exists(float scale) { return scale >= 0x1p-100f && scale <= 0x1p+100f; }
  [[gnu::always_inline]] explicit Divisor(float s) : scale(s), reciprocal(1.0f / s), limit(s * 0x1p+14f) {}
};

struct DivisorVectors {
  QuotientFloats scale, reciprocal;

#if defined(__AVX512BW__)
  [[gnu::always_inline]] explicit DivisorVectors(const Divisor& d)
      : scale(_mm512_set1_ps(d.scale)), reciprocal(_mm512_set1_ps(d.reciprocal)) {}
  /// Rounded quotients as 32-bit integers.
  [[gnu::always_inline]] QuotientBits operator()(QuotientBits bits) const {
    const __m512 x = _mm512_castsi512_ps(bits);
    const __m512 near = _mm512_mul_ps(x, reciprocal);
    const __m512 rest = _mm512_fnmadd_ps(near, scale, x);
    return _mm512_cvtps_epi32(_mm512_fmadd_ps(rest, reciprocal, near));
  }
#else
  [[gnu::always_inline]] explicit DivisorVectors(const Divisor& d)
      : scale(_mm256_set1_ps(d.scale)), reciprocal(_mm256_set1_ps(d.reciprocal)) {}
  [[gnu::always_inline]] QuotientBits operator()(QuotientBits bits) const {
    const __m256 x = _mm256_castsi256_ps(bits);
    const __m256 near = _mm256_mul_ps(x, reciprocal);
    const __m256 rest = _mm256_fnmadd_ps(near, scale, x);
    return _mm256_cvtps_epi32(_mm256_fmadd_ps(rest, reciprocal, near));
  }
#endif
};

/// How kInt8Step elements become codes: words, then bytes, both saturated. `tops` collects the largest magnitudes.
template <class From>
struct Int8Quotients;

#if defined(__AVX512BW__)
[[gnu::always_inline]] inline void store_codes(__m512i bytes, __m512i lowest, Byte* q) {
  _mm512_storeu_si512(q, _mm512_max_epi8(bytes, lowest));
}

/// Two float32 values lie in 32 bits: even elements below, odd ones above.
template <>
struct Int8Quotients<Bf16Element> {
  [[gnu::always_inline]] static __m512i limit(float x) {
    return _mm512_set1_epi16(static_cast<int16_t>(float_bits(x) >> 16));
  }
  [[gnu::always_inline]] static bool above(__m512i tops, __m512i limit) {
    return _mm512_cmpgt_epi16_mask(tops, limit) != 0;
  }
  [[gnu::always_inline]] static __m512i words(const Word* x, const DivisorVectors& divide, __m512i& tops) {
    alignas(64) static constexpr uint16_t kLower[32] = {0,  32, 2,  34, 4,  36, 6,  38, 8,  40, 10, 42, 12, 44, 14, 46,
                                                        16, 48, 18, 50, 20, 52, 22, 54, 24, 56, 26, 58, 28, 60, 30, 62};
    const __m512i both = _mm512_loadu_si512(x);
    tops = _mm512_max_epi16(tops, _mm512_and_si512(both, _mm512_set1_epi16(0x7FFF)));
    const __m512i even = divide(_mm512_slli_epi32(both, 16));
    const __m512i odd = divide(_mm512_and_si512(both, _mm512_set1_epi32(-0x10000)));
    return _mm512_permutex2var_epi16(even, _mm512_load_si512(kLower), odd);
  }
  [[gnu::always_inline]] static void step(const Word* x, const DivisorVectors& divide, __m512i lowest, Byte* q,
                                          __m512i& tops) {
    const __m512i first = words(x, divide, tops);
    const __m512i bytes = _mm512_packs_epi16(first, words(x + 32, divide, tops));
    store_codes(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), bytes), lowest, q);
  }
};

/// Elements that are widened one by one, in order.
template <class Load>
struct Int8Widened {
  [[gnu::always_inline]] static __m512i limit(float x) { return _mm512_set1_epi32(static_cast<int>(float_bits(x))); }
  [[gnu::always_inline]] static bool above(__m512i tops, __m512i limit) {
    return _mm512_cmpgt_epi32_mask(tops, limit) != 0;
  }
  [[gnu::always_inline]] static void step(const typename Load::Stored* x, const DivisorVectors& divide, __m512i lowest,
                                          Byte* q, __m512i& tops) {
    __m512i codes[4];
    for (int i = 0; i < 4; ++i) {
      const __m512i bits = Load::load(x + 16 * i);
      tops = _mm512_max_epi32(tops, _mm512_and_si512(bits, _mm512_set1_epi32(kFloatMagnitude)));
      codes[i] = divide(bits);
    }
    const __m512i bytes =
        _mm512_packs_epi16(_mm512_packs_epi32(codes[0], codes[1]), _mm512_packs_epi32(codes[2], codes[3]));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    store_codes(_mm512_permutexvar_epi32(order, bytes), lowest, q);
  }
};
struct F32Bits {
  using Stored = Dword;
  [[gnu::always_inline]] static __m512i load(const Dword* x) { return _mm512_loadu_si512(x); }
};
struct F16Bits {
  using Stored = Word;
  [[gnu::always_inline]] static __m512i load(const Word* x) {
    return _mm512_castps_si512(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))));
  }
};
[[gnu::always_inline]] inline __m512i repeat_byte(int x) {
  return _mm512_set1_epi8(static_cast<char>(x));
}
#else
[[gnu::always_inline]] inline void store_codes(__m256i bytes, __m256i lowest, Byte* q) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), _mm256_max_epi8(bytes, lowest));
}

template <>
struct Int8Quotients<Bf16Element> {
  [[gnu::always_inline]] static __m256i limit(float x) {
    return _mm256_set1_epi16(static_cast<int16_t>(float_bits(x) >> 16));
  }
  [[gnu::always_inline]] static bool above(__m256i tops, __m256i limit) {
    return _mm256_movemask_epi8(_mm256_cmpgt_epi16(tops, limit)) != 0;
  }
  [[gnu::always_inline]] static __m256i words(const Word* x, const DivisorVectors& divide, __m256i& tops) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    tops = _mm256_max_epi16(tops, _mm256_and_si256(both, _mm256_set1_epi16(0x7FFF)));
    const __m256i even = divide(_mm256_slli_epi32(both, 16));
    const __m256i odd = divide(_mm256_and_si256(both, _mm256_set1_epi32(-0x10000)));
    return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA);
  }
  [[gnu::always_inline]] static void step(const Word* x, const DivisorVectors& divide, __m256i lowest, Byte* q,
                                          __m256i& tops) {
    const __m256i first = words(x, divide, tops);
    const __m256i bytes = _mm256_packs_epi16(first, words(x + 16, divide, tops));
    store_codes(_mm256_permute4x64_epi64(bytes, 0xD8), lowest, q);
  }
};

template <class Load>
struct Int8Widened {
  [[gnu::always_inline]] static __m256i limit(float x) { return _mm256_set1_epi32(static_cast<int>(float_bits(x))); }
  [[gnu::always_inline]] static bool above(__m256i tops, __m256i limit) {
    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(tops, limit)) != 0;
  }
  [[gnu::always_inline]] static void step(const typename Load::Stored* x, const DivisorVectors& divide, __m256i lowest,
                                          Byte* q, __m256i& tops) {
    __m256i codes[4];
    for (int i = 0; i < 4; ++i) {
      const __m256i bits = Load::load(x + 8 * i);
      tops = _mm256_max_epi32(tops, _mm256_and_si256(bits, _mm256_set1_epi32(kFloatMagnitude)));
      codes[i] = divide(bits);
    }
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]), _mm256_packs_epi32(codes[2], codes[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    store_codes(_mm256_permutevar8x32_epi32(bytes, order), lowest, q);
  }
};
struct F32Bits {
  using Stored = Dword;
  [[gnu::always_inline]] static __m256i load(const Dword* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  }
};
struct F16Bits {
  using Stored = Word;
  [[gnu::always_inline]] static __m256i load(const Word* x) {
    return _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))));
  }
};
[[gnu::always_inline]] inline __m256i repeat_byte(int x) {
  return _mm256_set1_epi8(static_cast<char>(x));
}
#endif
template <>
struct Int8Quotients<F32Element> : Int8Widened<F32Bits> {};
template <>
struct Int8Quotients<F16Element> : Int8Widened<F16Bits> {};

/// Codes of n >= kInt8Step elements, at least `lowest` (-128 or -127); returns whether they are right. They are not if
/// a magnitude was above the divisor's limit, an infinity or NaN.
template <class From>
[[gnu::always_inline]] inline bool encode_quotients(const typename From::Stored* __restrict x, int64_t n,
                                                    const Divisor& divisor, int lowest, Byte* __restrict q) {
  // Lines are asked for further ahead than the hardware does, which stops at the end of a page.
  constexpr int64_t kAhead = 6144, kBytes = sizeof(typename From::Stored), kLine = 64;
  constexpr int64_t kLongRun = 16 * kInt8Step;  // elements from which it pays to begin anew at a line
  using Vector = Int8Quotients<From>;
  const DivisorVectors divide(divisor);
  const QuotientBits least = repeat_byte(lowest);
  QuotientBits tops = QuotientBits{};
  int64_t i = 0;
  if (n >= kLongRun) {
    Vector::step(x, divide, least, q, tops);
    i = (kLine - static_cast<int64_t>(reinterpret_cast<uintptr_t>(x) % kLine)) / kBytes;
  }
  for (; i + kInt8Step <= n; i += kInt8Step) {
    for (int64_t line = 0; line < kInt8Step * kBytes; line += kLine)
      __builtin_prefetch(reinterpret_cast<const char*>(x + i) + kAhead + line);
    Vector::step(x + i, divide, least, q + i, tops);
  }
  if (i < n) Vector::step(x + n - kInt8Step, divide, least, q + n - kInt8Step, tops);
  return !Vector::above(tops, Vector::limit(divisor.limit));
}
#endif

}  // namespace
}  // namespace mezzotint::kernel
