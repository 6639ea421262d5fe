#include "mezzotint/kernel/mx.h"

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/kernel/isa_bf16.h"
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_fp8.h"
#include "mezzotint/kernel/isa_max.h"

namespace mezzotint::kernel {
namespace {

/// Largest magnitude of a block's bits, ordered like the values with inf and NaN on top.
template <class Element, bool Finite>
[[gnu::always_inline]] inline typename Element::Magnitude top_of(const typename Element::Stored* x, int64_t n) {
  using Magnitude = typename Element::Magnitude;
  constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
  Magnitude top = 0;
  for (int64_t i = 0; i < n; ++i) {
    auto a = static_cast<Magnitude>(static_cast<Magnitude>(x[i]) & kMask);
    if (Finite) a = static_cast<Magnitude>(a < Element::kInf ? a : 0);
    top = a > top ? a : top;
  }
  return top;
}

template <class Element>
[[gnu::always_inline]] inline typename Element::Magnitude whole_top(const typename Element::Stored* x) {
#if defined(MEZZOTINT_MAX_VECTORS)
  if constexpr (sizeof(typename Element::Magnitude) == 2)
    return static_cast<typename Element::Magnitude>(top_of_words(x, kMxBlock));
  else
#endif
    return top_of<Element, false>(x, kMxBlock);
}

constexpr int64_t kChunk = 128;  // blocks whose scales are made together

/// amax of each of `count` blocks of 32 columns, the last of which has `last` columns; `seen` tells whether a block
/// holds anything but zeros. Returns whether an inf or NaN was among them.
template <class Element>
[[gnu::noinline]] bool block_tops(const typename Element::Stored* x, int64_t count, int64_t last,
                                  float* __restrict tops, Dword* __restrict seen) {
  using Stored = typename Element::Stored;
  const int64_t whole = last == kMxBlock ? count : count - 1;
  int64_t done = 0;
#if defined(__AVX512BW__)
  if constexpr (sizeof(Stored) == 2)
    for (; done + 16 <= whole; done += 16)
      _mm512_storeu_si512(seen + done, sixteen_tops<kMxBlock>(x + done * kMxBlock));
#endif
  for (; done < whole; ++done) seen[done] = static_cast<uint32_t>(whole_top<Element>(x + done * kMxBlock));
  if (whole < count) seen[whole] = static_cast<uint32_t>(top_of<Element, false>(x + whole * kMxBlock, last));
  int32_t non_finite = 0;
  for (int64_t b = 0; b < count; ++b) {
    tops[b] = Element::load(static_cast<Stored>(seen[b]));
    non_finite |= static_cast<int32_t>(seen[b]) >= Element::kInf ? 1 : 0;
  }
  for (int64_t b = 0; non_finite != 0 && b < count; ++b)
    if (static_cast<int32_t>(seen[b]) >= Element::kInf)
      tops[b] =
          Element::load(static_cast<Stored>(top_of<Element, true>(x + b * kMxBlock, b + 1 < count ? kMxBlock : last)));
  return non_finite != 0;
}

[[gnu::noinline]] void bytes_of(const float* __restrict tops, const Dword* __restrict seen, int64_t count,
                                Byte* __restrict scales) {
  for (int64_t b = 0; b < count; ++b) {
    const uint32_t code = E8m0::encode_ceil(tops[b] / E4m3::kMax);
    scales[b] = static_cast<uint8_t>(seen[b] == 0 ? 0 : code > 1 ? code : 1);
  }
}

[[gnu::always_inline]] inline float reciprocal(uint32_t b) {
  return float_from_bits(b < 254 ? (254 - b) << 23 : b == 254 ? 0x00400000u : 0x7FC00000u);
}
[[gnu::always_inline]] inline float power(uint32_t b) {
  return float_from_bits(b << 23);
}

/// Of a row that begins at column col0, calls whole(first column, blocks, first block) for its whole blocks and
/// part(first column, columns, block) for the others.
template <class Whole, class Part>
[[gnu::always_inline]] inline void for_each_run_of_blocks(int64_t col0, int64_t cols, Whole&& whole, Part&& part) {
  int64_t c = 0, block = col0 / kMxBlock;
  if (const int64_t head = col0 % kMxBlock; head != 0) {
    c = smaller(kMxBlock - head, cols);
    part(int64_t{0}, c, block++);
  }
  if (const int64_t blocks = (cols - c) / kMxBlock; blocks != 0) {
    whole(c, blocks, block);
    c += blocks * kMxBlock;
    block += blocks;
  }
  if (c < cols) part(c, cols - c, block);
}

template <class From>
[[gnu::always_inline]] inline void encode_block(const typename From::Stored* __restrict x, int64_t n, uint32_t scale,
                                                Byte* __restrict q) {
  if (scale == 0) {
    for (int64_t i = 0; i < n; ++i) q[i] = 0;
    return;
  }
  const float multiplier = reciprocal(scale);
  int64_t i = 0;
#if defined(MEZZOTINT_FP8_VECTORS)
  if constexpr (__is_same(From, Bf16Element))
    for (; i + kFp8Step <= n; i += kFp8Step) encode_any_step<E4m3>(x + i, multiplier, q + i);
#endif
  for (; i < n; ++i) q[i] = static_cast<uint8_t>(E4m3::encode_saturating(From::load(x[i]) * multiplier));
}

template <class From>
[[gnu::noinline]] void encode_whole_block(const typename From::Stored* __restrict x, uint32_t scale,
                                          Byte* __restrict q) {
  encode_block<From>(x, kMxBlock, scale, q);
}

#if defined(MEZZOTINT_FP8_VECTORS)
/// Codes of up to 64 whole blocks; bit i of the result: block i is still to be done. A function of its own, see
/// encode_normal_steps.
[[gnu::noinline]] uint64_t encode_normal_blocks(const Word* x, int64_t blocks, const Byte* scales, Byte* q) {
  uint64_t left = 0;
  for (int64_t b = 0; b < blocks; ++b, x += kMxBlock, q += kMxBlock) {
    __builtin_prefetch(x + kFp8Ahead);
    // In between the smallest normal code is that of a normal bf16 value, and the largest that of a finite one.
    bool done = scales[b] >= 8 && scales[b] <= 246;
    const Words least = all_words(kLeastNormalWord<E4m3> + 128 * (scales[b] - 127));
    for (int64_t i = 0; i < kMxBlock; i += kFp8Step) done &= encode_normal_words<E4m3>(load_words(x + i), least, q + i);
    left |= static_cast<uint64_t>(!done) << b;
  }
  return left;
}
#endif

template <class From>
void encode_blocks(const typename From::Stored* x, int64_t blocks, const Byte* scales, Byte* q) {
#if defined(MEZZOTINT_FP8_VECTORS)
  if constexpr (__is_same(From, Bf16Element)) {
    for (int64_t first = 0; first < blocks; first += 64) {
      uint64_t left = encode_normal_blocks(x + first * kMxBlock, smaller(int64_t{64}, blocks - first), scales + first,
                                           q + first * kMxBlock);
      for (; left != 0; left &= left - 1) {
        const int64_t b = first + __builtin_ctzll(left);
        encode_whole_block<From>(x + b * kMxBlock, scales[b], q + b * kMxBlock);
      }
    }
    return;
  }
#endif
  for (int64_t b = 0; b < blocks; ++b) encode_whole_block<From>(x + b * kMxBlock, scales[b], q + b * kMxBlock);
}

template <class From>
void encode_row(const typename From::Stored* x, int64_t col0, int64_t cols, const Byte* scales, Byte* q) {
  for_each_run_of_blocks(
      col0, cols,
      [&](int64_t c, int64_t blocks, int64_t block) { encode_blocks<From>(x + c, blocks, scales + block, q + c); },
      [&](int64_t c, int64_t n, int64_t block) { encode_block<From>(x + c, n, scales[block], q + c); });
}

template <class From>
[[gnu::noinline]] void encode_row_stochastic(const typename From::Stored* __restrict x, int64_t col0, int64_t cols,
                                             const Byte* __restrict scales, Byte* __restrict q, uint64_t key,
                                             uint64_t first) {
  RandomChunk chunk;
  const auto block_of = [&](int64_t c, int64_t n, int64_t block) {
    const uint32_t scale = scales[block];
    const float multiplier = reciprocal(scale);
    const uint32_t* random = fill_random(key, first + static_cast<uint64_t>(c), n, chunk);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t code = E4m3::encode_stochastic(From::load(x[c + i]) * multiplier, random[i]);
      q[c + i] = static_cast<uint8_t>(scale == 0 ? 0 : code);
    }
  };
  for_each_run_of_blocks(
      col0, cols,
      [&](int64_t c, int64_t blocks, int64_t block) {
        for (int64_t b = 0; b < blocks; ++b) block_of(c + b * kMxBlock, kMxBlock, block + b);
      },
      block_of);
}

template <class Stored>
[[gnu::always_inline]] inline void decode_block(const Byte* __restrict q, int64_t n, float scale,
                                                Stored* __restrict out) {
  for (int64_t i = 0; i < n; ++i) store_value(E4m3::decode(q[i]) * scale, elements(out)[i]);
}

#if defined(MEZZOTINT_BF16_VECTORS)
/// A block, whatever its codes are. The scale must be finite, also in Vector's unit.
[[gnu::noinline]] void decode_any_block(const Byte* q, uint32_t scale, uint16_t* out) {
  const float unit = power(scale) * E4m3Vector::kUnit;
  for (int64_t i = 0; i < kMxBlock; i += kBf16Step)
    store_products(E4m3Vector::load(q + i), unit, unit, elements(out) + i);
}

/// Up to 64 whole blocks to bf16; bit i of the result: block i is still to be done. A normal code has the bits of the
/// value in the order that bf16 has them, and only the exponent is biased by 120 less, and by the block's scale. A
/// function of its own: beside other loops its constants would not stay in registers.
[[gnu::noinline]] uint64_t decode_normal_blocks(const Byte* q, int64_t blocks, const Byte* scales, uint16_t* values) {
  constexpr int kBias = 127 - E4m3::kBias, kDown = 7 - E4m3::kMantissaBits;
  // Sign and magnitude in their places; the smallest normal code, and from there to the largest finite one.
  constexpr int kBits = -0x8000 | E4m3::kAllOnes << kDown, kLeast = 1 << 7, kRange = (E4m3::kMaxCode << kDown) - kLeast;
  uint64_t left = 0;
  Word* out = elements(values);
  for (int64_t b = 0; b < blocks; ++b, q += kMxBlock, out += kMxBlock) {
    bool done = scales[b] >= 127 - kBias && scales[b] <= 246;
    const int exponent = (scales[b] - 127 + kBias) * 128;
#if defined(__AVX512BW__)
    const __m512i words = _mm512_and_si512(_mm512_slli_epi16(load_codes(q), kDown), _mm512_set1_epi16(kBits));
    const __m512i magnitudes = _mm512_and_si512(words, _mm512_set1_epi16(0x7FFF));
    const __m512i above = _mm512_sub_epi16(magnitudes, _mm512_set1_epi16(kLeast));
    done &= _mm512_cmpgt_epu16_mask(above, _mm512_set1_epi16(kRange)) == 0;
    _mm512_storeu_si512(out, _mm512_add_epi16(words, _mm512_set1_epi16(static_cast<int16_t>(exponent))));
#else
    const __m256i range = _mm256_set1_epi16(kRange), added = _mm256_set1_epi16(static_cast<int16_t>(exponent));
    for (int64_t i = 0; i < kMxBlock; i += kBf16Step) {
      const __m256i words = _mm256_and_si256(_mm256_slli_epi16(load_codes(q + i), kDown), _mm256_set1_epi16(kBits));
      const __m256i above =
          _mm256_sub_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0x7FFF)), _mm256_set1_epi16(kLeast));
      done &= _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(above, range), range)) == -1;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_add_epi16(words, added));
    }
#endif
    left |= static_cast<uint64_t>(!done) << b;
  }
  return left;
}
#endif

void decode_blocks(const Byte* q, int64_t blocks, const Byte* scales, uint16_t* out) {
  for (int64_t first = 0; first < blocks; first += 64) {
    const int64_t count = smaller(int64_t{64}, blocks - first);
#if defined(MEZZOTINT_BF16_VECTORS)
    uint64_t left = decode_normal_blocks(q + first * kMxBlock, count, scales + first, out + first * kMxBlock);
#else
    uint64_t left = count < 64 ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
#endif
    for (; left != 0; left &= left - 1) {
      const int64_t b = first + __builtin_ctzll(left);
#if defined(MEZZOTINT_BF16_VECTORS)
      if (scales[b] < 247) {
        decode_any_block(q + b * kMxBlock, scales[b], out + b * kMxBlock);
        continue;
      }
#endif
      decode_block(q + b * kMxBlock, kMxBlock, power(scales[b]), out + b * kMxBlock);
    }
  }
}
void decode_blocks(const Byte* q, int64_t blocks, const Byte* scales, float* out) {
  for (int64_t b = 0; b < blocks; ++b) decode_block(q + b * kMxBlock, kMxBlock, power(scales[b]), out + b * kMxBlock);
}

template <class Out>
[[gnu::noinline]] void decode_row(const Byte* __restrict q, int64_t col0, int64_t cols, const Byte* __restrict scales,
                                  Out* __restrict out) {
  for_each_run_of_blocks(
      col0, cols,
      [&](int64_t c, int64_t blocks, int64_t block) { decode_blocks(q + c, blocks, scales + block, out + c); },
      [&](int64_t c, int64_t n, int64_t block) { decode_block(q + c, n, power(scales[block]), out + c); });
}

}  // namespace

template <>
bool mx_scales<kIsa>(const Source& x, uint8_t* scales, int64_t scales_stride) {
  bool non_finite = false;
  with_element(x.dtype, [&]<class Element> {
    float tops[kChunk];
    Dword seen[kChunk];
    const int64_t blocks = (x.cols + kMxBlock - 1) / kMxBlock;
    for (int64_t r = 0; r < x.rows; ++r) {
      const auto* row = static_cast<const typename Element::Stored*>(x.data) + r * x.stride;
      for (int64_t b = 0; b < blocks; b += kChunk) {
        const int64_t count = smaller(kChunk, blocks - b);
        const int64_t last = smaller(kMxBlock, x.cols - (b + count - 1) * kMxBlock);
        if (block_tops<Element>(row + b * kMxBlock, count, last, tops, seen)) non_finite = true;
        bytes_of(tops, seen, count, scales + r * scales_stride + b);
      }
    }
  });
  return non_finite;
}

template <>
void encode_mx<kIsa>(const Source& x, const uint8_t* scales, int64_t scales_stride, int64_t col0, uint8_t* codes,
                     int64_t codes_stride, const Rounding& rounding, const ElementIndex& index) {
  const bool stochastic = rounding.mode == Rounding::Mode::stochastic;
  with_element(x.dtype, [&]<class From> {
    for (int64_t r = 0; r < x.rows; ++r) {
      const auto* row = static_cast<const typename From::Stored*>(x.data) + r * x.stride;
      const Byte* own = scales + r * scales_stride;
      Byte* to = codes + r * codes_stride;
      if (stochastic)
        encode_row_stochastic<From>(row, col0, x.cols, own, to, rounding.key,
                                    index.first + static_cast<uint64_t>(r) * index.row_stride);
      else
        encode_row<From>(row, col0, x.cols, own, to);
    }
  });
}

template <>
void decode_mx<kIsa>(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
                     int64_t col0, int64_t codes_stride, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    decode_row(codes + r * codes_stride, col0, cols, scales + r * scales_stride, out + r * out_stride);
}

template <>
void decode_mx<kIsa>(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
                     int64_t col0, int64_t codes_stride, uint16_t* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    decode_row(codes + r * codes_stride, col0, cols, scales + r * scales_stride, out + r * out_stride);
}

}  // namespace mezzotint::kernel
