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
  bool non_finite = false;
  for (int64_t b = 0; b < count; ++b, x += kMxBlock) {
    auto top = b + 1 < count || last == kMxBlock ? whole_top<Element>(x) : top_of<Element, false>(x, last);
    seen[b] = static_cast<uint32_t>(top);
    if (top >= Element::kInf) {
      non_finite = true;
      top = top_of<Element, true>(x, b + 1 < count ? kMxBlock : last);
    }
    tops[b] = Element::load(static_cast<typename Element::Stored>(top));
  }
  return non_finite;
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

/// Calls f(first column, count, block) for the blocks of a row that begins at column col0; count is a constant 32 for
/// whole blocks.
template <class Whole, class Part>
[[gnu::always_inline]] inline void for_each_block(int64_t col0, int64_t cols, Whole&& whole, Part&& part) {
  int64_t c = 0, block = col0 / kMxBlock;
  if (const int64_t head = col0 % kMxBlock; head != 0) {
    c = smaller(kMxBlock - head, cols);
    part(int64_t{0}, c, block++);
  }
  for (; c + kMxBlock <= cols; c += kMxBlock) whole(c, block++);
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
    for (; i + kFp8Step <= n; i += kFp8Step) encode_step<E4m3>(x + i, multiplier, q + i);
#endif
  for (; i < n; ++i) q[i] = static_cast<uint8_t>(E4m3::encode_saturating(From::load(x[i]) * multiplier));
}

template <class From>
[[gnu::noinline]] void encode_row(const typename From::Stored* __restrict x, int64_t col0, int64_t cols,
                                  const Byte* __restrict scales, Byte* __restrict q) {
  for_each_block(
      col0, cols, [&](int64_t c, int64_t block) { encode_block<From>(x + c, kMxBlock, scales[block], q + c); },
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
  for_each_block(
      col0, cols, [&](int64_t c, int64_t block) { block_of(c, kMxBlock, block); }, block_of);
}

template <class Stored>
[[gnu::always_inline]] inline void decode_block(const Byte* __restrict q, int64_t n, float scale,
                                                Stored* __restrict out) {
  for (int64_t i = 0; i < n; ++i) store_value(E4m3::decode(q[i]) * scale, elements(out)[i]);
}

/// Decodes whole blocks in vectors, up to the first scale that they cannot take; returns how many. A function of its
/// own: beside other loops its constants would not stay in registers.
[[gnu::noinline]] int64_t decode_blocks([[maybe_unused]] const Byte* __restrict q, [[maybe_unused]] int64_t count,
                                        [[maybe_unused]] const Byte* __restrict scales,
                                        [[maybe_unused]] uint16_t* __restrict out) {
  int64_t b = 0;
#if defined(MEZZOTINT_BF16_VECTORS)
  for (; b < count && scales[b] < 247; ++b, q += kMxBlock, out += kMxBlock) {
    const float unit = power(scales[b]) * E4m3Vector::kUnit;  // finite
    for (int64_t i = 0; i < kMxBlock; i += kBf16Step)
      store_products(E4m3Vector::load(q + i), unit, unit, elements(out) + i);
  }
#endif
  return b;
}
int64_t decode_blocks(const Byte*, int64_t, const Byte*, float*) {
  return 0;
}

template <class Out>
[[gnu::noinline]] void decode_row(const Byte* __restrict q, int64_t col0, int64_t cols, const Byte* __restrict scales,
                                  Out* __restrict out) {
  int64_t done = 0;
  for_each_block(
      col0, cols,
      [&](int64_t c, int64_t block) {
        if (c < done) return;
        done = c + decode_blocks(q + c, (cols - c) / kMxBlock, scales + block, out + c) * kMxBlock;
        if (done == c) decode_block(q + c, kMxBlock, power(scales[block]), out + c);
      },
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
