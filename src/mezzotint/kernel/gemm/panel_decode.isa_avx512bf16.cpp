// Codes of 8 bits to bf16 by VBMI table look-ups, 64 at a time; other codes through float32.
#include <immintrin.h>

#include "mezzotint/base/e2m1.h"
#include "mezzotint/kernel/gemm/byte_decoder.h"
#include "mezzotint/kernel/gemm/panel_decode.h"
#include "mezzotint/kernel/gemm/panel_scales.h"
#include "mezzotint/kernel/gemm/unroll.h"

namespace mezzotint::kernel {
namespace {

/// 16 floats for the codes of 4 bits.
struct Table16 {
  alignas(64) float value[16];
};
constexpr Table16 make_e2m1() {
  Table16 table{};
  for (uint32_t code = 0; code < 16; ++code) table.value[code] = E2m1::decode(code);
  return table;
}
constexpr Table16 make_int4() {
  Table16 table{};
  for (int code = 0; code < 16; ++code) table.value[code] = static_cast<float>(code < 8 ? code : code - 16);
  return table;
}
constexpr Table16 kE2m1Table = make_e2m1();
constexpr Table16 kInt4Table = make_int4();

[[gnu::always_inline]] inline __m512i to_bf16(__m512 first, __m512 second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}
[[gnu::always_inline]] inline __m512 low_half(__m512i bf16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(bf16)), 16));
}
[[gnu::always_inline]] inline __m512 high_half(__m512i bf16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bf16, 1)), 16));
}

void decode_bytes(const Bf16Table& table, const Byte* codes, int64_t n, Word* out) {
  const ByteDecoder decode(table);
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const Pair pair = decode(_mm512_loadu_si512(codes + i));
    _mm512_storeu_si512(out + i, pair.first);
    _mm512_storeu_si512(out + i + 32, pair.second);
  }
  if (i == n) return;
  const Pair pair = decode(_mm512_maskz_loadu_epi8(first_bytes(n - i), codes + i));
  _mm512_mask_storeu_epi16(out + i, first_words(n - i), pair.first);
  _mm512_mask_storeu_epi16(out + i + 32, first_words(n - i - 32), pair.second);
}

/// 32 values of a row from column c on as two vectors of float32; the mask covers what exists.
struct Floats {
  __m512 first, second;
};
template <class Load>
[[gnu::always_inline]] inline void through_float(int64_t n, Word* out, Load&& load) {
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {  // a constant count: no masks
    const Floats x = load(i, int64_t{32});
    _mm512_storeu_si512(out + i, to_bf16(x.first, x.second));
  }
  if (i < n) {
    const Floats x = load(i, n - i);
    _mm512_mask_storeu_epi16(out + i, first_words(n - i), to_bf16(x.first, x.second));
  }
}

[[gnu::always_inline]] inline __m512 int8_floats(const Byte* codes, int64_t n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_dwords(n), codes)));
}

/// 32 codes of 4 bits as byte indices, even columns first.
template <bool kHighFirst>
[[gnu::always_inline]] inline __m256i nibbles(const Byte* codes, int64_t n) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(first_dwords((n + 1) / 2), codes));
  const __m256i spread = kHighFirst ? _mm256_or_si256(_mm256_srli_epi16(wide, 4), _mm256_slli_epi16(wide, 8))
                                    : _mm256_or_si256(wide, _mm256_slli_epi16(wide, 4));
  return _mm256_and_si256(spread, _mm256_set1_epi8(15));
}
template <bool kHighFirst>
[[gnu::always_inline]] inline Floats nibble_floats(const Byte* codes, int64_t n, __m512 table) {
  const __m256i index = nibbles<kHighFirst>(codes, n);
  return {_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(index)), table),
          _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(index, 1)), table)};
}

void decode_plain(ElementCode code, const Byte* codes, int64_t n, Word* out) {
  const Word* const words = reinterpret_cast<const Word*>(codes);
  switch (code) {
    case ElementCode::e4m3:
      return decode_bytes(kE4m3Table, codes, n, out);
    case ElementCode::e5m2:
      return decode_bytes(kE5m2Table, codes, n, out);
    case ElementCode::bf16:
      __builtin_memcpy(out, codes, static_cast<size_t>(n) * 2);
      return;
    case ElementCode::int8:
      return through_float(n, out, [&](int64_t i, int64_t left) MEZZOTINT_UNROLLED {
        return Floats{int8_floats(codes + i, left), int8_floats(codes + i + 16, left - 16)};
      });
    case ElementCode::int4: {
      const __m512 table = _mm512_load_ps(kInt4Table.value);
      return through_float(n, out, [&](int64_t i, int64_t left) MEZZOTINT_UNROLLED {
        return nibble_floats<false>(codes + i / 2, left, table);
      });
    }
    case ElementCode::e2m1: {
      const __m512 table = _mm512_load_ps(kE2m1Table.value);
      return through_float(n, out, [&](int64_t i, int64_t left) MEZZOTINT_UNROLLED {
        return nibble_floats<true>(codes + i / 2, left, table);
      });
    }
    case ElementCode::f32:
      return through_float(n, out, [&](int64_t i, int64_t left) MEZZOTINT_UNROLLED {
        return Floats{_mm512_maskz_loadu_ps(first_dwords(left), codes + 4 * i),
                      _mm512_maskz_loadu_ps(first_dwords(left - 16), codes + 4 * (i + 16))};
      });
    case ElementCode::f16:
      return through_float(n, out, [&](int64_t i, int64_t left) MEZZOTINT_UNROLLED {
        const __m512i x = _mm512_maskz_loadu_epi16(first_words(left), words + i);
        return Floats{_mm512_cvtph_ps(_mm512_castsi512_si256(x)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1))};
      });
  }
}

constexpr int64_t kScalesAtOnce = 64;

/// Codes e2m1 or int4 whose scales cover 16 columns.
template <bool kHighFirst>
void decode_nibbles16(const float* table16, const Byte* codes, int64_t n, const float* scales, Word* out) {
  const __m512 table = _mm512_load_ps(table16);
  through_float(n, out, [&](int64_t i, int64_t left) MEZZOTINT_UNROLLED {
    const Floats x = nibble_floats<kHighFirst>(codes + i / 2, left, table);
    return Floats{_mm512_mul_ps(x.first, _mm512_set1_ps(scales[i / 16])),
                  _mm512_mul_ps(x.second, _mm512_set1_ps(scales[i / 16 + 1]))};
  });
}

/// Any code times its scales, after decode_plain: every 16 values lie in one block. `in_block` of the first block's
/// groups of 16 lie before the first value.
void scale_in_place(Word* values, int64_t n, const float* scales, int64_t block16, int64_t in_block) {
  int64_t j = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = first_dwords(n - i);
    const __m256i x = _mm256_maskz_loadu_epi16(mask, values + i);
    const __m512 f = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    const __m256bh y = _mm512_cvtneps_pbh(_mm512_mul_ps(f, _mm512_set1_ps(scales[j])));
    _mm256_mask_storeu_epi16(values + i, mask, reinterpret_cast<__m256i>(y));
    if (++in_block == block16) ++j, in_block = 0;
  }
}

/// The same with 32 columns to a scale.
void scale_in_place32(Word* values, int64_t n, const float* scales) {
  for (int64_t i = 0; i < n; i += 32) {
    const __m512i x = _mm512_maskz_loadu_epi16(first_words(n - i), values + i);
    const __m512 scale = _mm512_set1_ps(scales[i / 32]);
    const __m512i y = to_bf16(_mm512_mul_ps(low_half(x), scale), _mm512_mul_ps(high_half(x), scale));
    _mm512_mask_storeu_epi16(values + i, first_words(n - i), y);
  }
}

}  // namespace

template <>
void decode_to_bf16<kIsa>(const Operand& m, const Rectangle& part, uint16_t* out, int64_t out_stride) {
  const Byte* first = static_cast<const Byte*>(m.data) + part.c0 * bits(m.code) / 8;
  const int64_t block = m.scales.block_cols;
  for (int64_t r = 0; r < part.rows; ++r) {
    const Byte* codes = first + (part.r0 + r) * m.stride;
    Word* row = reinterpret_cast<Word*>(out) + r * out_stride;
    if (m.scales.code == ScaleCode::none || m.scales.code == ScaleCode::f32) {
      decode_plain(m.code, codes, part.cols, row);
      continue;
    }
    float scales[kScalesAtOnce + 1];
    for (int64_t c = 0; c < part.cols;) {
      const int64_t j = (part.c0 + c) / block;
      const int64_t count = smaller((part.c0 + part.cols - 1) / block - j + 1, kScalesAtOnce);
      const int64_t end = smaller((j + count) * block - part.c0, part.cols);
      read_scales(m.scales, part.r0 + r, j, count, scales);
      scales[count] = 0;
      const Byte* from = codes + c * bits(m.code) / 8;
      if (m.code == ElementCode::e2m1 && block == 16) {
        decode_nibbles16<true>(kE2m1Table.value, from, end - c, scales, row + c);
      } else {
        decode_plain(m.code, from, end - c, row + c);
        const int64_t in_block = (part.c0 + c) % block;
        if (block == 32 && in_block == 0) {
          scale_in_place32(row + c, end - c, scales);
        } else {
          scale_in_place(row + c, end - c, scales, block / 16, in_block / 16);
        }
      }
      c = end;
    }
  }
}

}  // namespace mezzotint::kernel
