#pragma once
// Scales of sixteen blocks of bf16 of fp4_scales.isa.cpp with AVX-512, a block to a lane. Internal linkage, for that
// file alone.
#include <immintrin.h>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// E4M3 codes and their values, of numbers that are not negative; what is beyond the largest value becomes that.
struct E4m3Lanes {
  __m512i codes;
  __m512 values;

  /// 2^(e + 20), added to a value with exponent e, has the step of the code as its last bit.
  [[gnu::always_inline]] static E4m3Lanes of(__m512 x) {
    constexpr int kLeast = E4m3::kMinNormalBits, kShift = E4m3::kShift;
    const __m512 a = _mm512_min_ps(x, _mm512_set1_ps(E4m3::kMax));
    const __m512i field = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(kFloatInfBits));
    const __m512i exponent = _mm512_max_epi32(field, _mm512_set1_epi32(kLeast));
    const __m512 magic = _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(kShift << 23)));
    const __m512 sum = _mm512_add_ps(a, magic);
    const __m512i steps = _mm512_sub_epi32(_mm512_castps_si512(sum), _mm512_castps_si512(magic));
    const __m512i above = _mm512_srli_epi32(_mm512_sub_epi32(exponent, _mm512_set1_epi32(kLeast)), kShift);
    return {_mm512_add_epi32(steps, above), _mm512_sub_ps(sum, magic)};
  }
};

/// Sixteen blocks with a block to a lane: lane 4 i + j is block 4 j + i, and dword k holds columns 2 k and 2 k + 1.
struct SixteenBlocks {
  __m512i pairs[8];  // magnitudes
  __m512i tops;      // the largest of them
};

[[gnu::always_inline]] inline SixteenBlocks load_sixteen_blocks(const Word* x) {
  constexpr int64_t kAhead = 3072;
  SixteenBlocks out;
  const __m512i mask = _mm512_set1_epi32(0x7FFF7FFF);
  __m512i low[4], high[4];  // columns 0 to 7 and 8 to 15 of four blocks
  for (int i = 0; i < 4; ++i) {
    __builtin_prefetch(x + 64 * i + kAhead);
    __builtin_prefetch(x + 64 * i + 32 + kAhead);
    const __m512i a = _mm512_and_si512(_mm512_loadu_si512(x + 64 * i), mask);
    const __m512i b = _mm512_and_si512(_mm512_loadu_si512(x + 64 * i + 32), mask);
    low[i] = _mm512_shuffle_i64x2(a, b, 0x88);
    high[i] = _mm512_shuffle_i64x2(a, b, 0xDD);
  }
  const auto transpose = [](const __m512i* in, __m512i* to) __attribute__((always_inline)) {
    const __m512i a = _mm512_unpacklo_epi32(in[0], in[1]), b = _mm512_unpacklo_epi32(in[2], in[3]);
    const __m512i c = _mm512_unpackhi_epi32(in[0], in[1]), d = _mm512_unpackhi_epi32(in[2], in[3]);
    to[0] = _mm512_unpacklo_epi64(a, b);
    to[1] = _mm512_unpackhi_epi64(a, b);
    to[2] = _mm512_unpacklo_epi64(c, d);
    to[3] = _mm512_unpackhi_epi64(c, d);
  };
  transpose(low, out.pairs);
  transpose(high, out.pairs + 4);
  __m512i tops = out.pairs[0];
  for (int k = 1; k < 8; ++k) tops = _mm512_max_epi16(tops, out.pairs[k]);
  out.tops = _mm512_max_epi32(_mm512_srli_epi32(tops, 16), _mm512_and_si512(tops, _mm512_set1_epi32(0xFFFF)));
  return out;
}

/// One of two scales of every block.
struct Candidate {
  E4m3Lanes scale;
  __m512 reciprocal;
  __m512 error;

  [[gnu::always_inline]] Candidate(__m512 wanted, __m512 global) {
    scale = E4m3Lanes::of(_mm512_max_ps(wanted, _mm512_set1_ps(E4m3::kStep)));
    reciprocal = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_mul_ps(global, scale.values));
    error = _mm512_setzero_ps();
  }
  /// As try_scales does it.
  [[gnu::always_inline]] void add(__m512 x) {
    const __m512 y = _mm512_mul_ps(x, reciprocal);
    const __m512 a = _mm512_min_ps(y, _mm512_set1_ps(6.0f));  // the second operand where y is NaN
    const __m512i field = _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(kFloatInfBits));
    const __m512i exponent = _mm512_max_epi32(field, _mm512_set1_epi32(0x3F800000));
    const __m512 magic = _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32((22 << 23) + 0x400000)));
    const __m512 d = _mm512_sub_ps(_mm512_sub_ps(_mm512_add_ps(a, magic), magic), y);
    error = _mm512_add_ps(error, _mm512_mul_ps(d, d));
  }
  [[gnu::always_inline]] __m512 total() const {
    return _mm512_mul_ps(error, _mm512_mul_ps(scale.values, scale.values));
  }
};

/// Scales of sixteen blocks: the better one of two, as search<false> with Fp4Search::two finds it. False, and nothing
/// is written, where a block holds inf or NaN.
[[gnu::noinline]] bool search_sixteen_blocks(const Word* x, float global, Byte* scales) {
  const SixteenBlocks blocks = load_sixteen_blocks(x);
  if (_mm512_cmpge_epi32_mask(blocks.tops, _mm512_set1_epi32(Bf16Element::kInf)) != 0) return false;
  const __m512 amax = _mm512_castsi512_ps(_mm512_slli_epi32(blocks.tops, 16)), all = _mm512_set1_ps(global);
  const __m512 base = _mm512_div_ps(_mm512_div_ps(amax, _mm512_set1_ps(6.0f)), all);
  Candidate first(base, all), second(_mm512_mul_ps(base, _mm512_set1_ps(1.5f)), all);
  for (int k = 0; k < 8; ++k) {
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(blocks.pairs[k], 16));
    const __m512 odd =
        _mm512_castsi512_ps(_mm512_and_si512(blocks.pairs[k], _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
    first.add(even);
    second.add(even);
    first.add(odd);
    second.add(odd);
  }
  const __m512 inf = _mm512_castsi512_ps(_mm512_set1_epi32(kFloatInfBits));
  const __m512 best = _mm512_min_ps(first.total(), inf);  // inf where NaN
  const __mmask16 better = _mm512_cmp_ps_mask(second.total(), best, _CMP_LT_OQ);
  const __mmask16 zero = _mm512_cmp_ps_mask(base, _mm512_setzero_ps(), _CMP_EQ_OQ);
  const __m512i codes = _mm512_mask_mov_epi32(first.scale.codes, better, second.scale.codes);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i sorted = _mm512_permutexvar_epi32(order, _mm512_mask_mov_epi32(codes, zero, _mm512_setzero_si512()));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(scales), _mm512_cvtepi32_epi8(sorted));
  return true;
}

/// Scales of `count` groups of sixteen blocks, as scales_of makes them, up to the first that holds inf or NaN; returns
/// how many.
[[gnu::noinline]] int64_t plain_sixteen_blocks(const Word* x, int64_t count, float global, Byte* scales) {
  const __m512 all = _mm512_set1_ps(global), six = _mm512_set1_ps(6.0f);
  for (int64_t i = 0; i < count; ++i) {
    const __m512i tops = sixteen_tops<kFp4Block>(x + i * 16 * kFp4Block);
    if (_mm512_cmpge_epi32_mask(tops, _mm512_set1_epi32(Bf16Element::kInf)) != 0) return i;
    const __m512 amax = _mm512_castsi512_ps(_mm512_slli_epi32(tops, 16));
    const E4m3Lanes scale = E4m3Lanes::of(_mm512_div_ps(_mm512_div_ps(amax, six), all));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(scales + i * 16), _mm512_cvtepi32_epi8(scale.codes));
  }
  return count;
}

}  // namespace
}  // namespace mezzotint::kernel
