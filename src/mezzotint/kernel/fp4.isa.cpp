#include "mezzotint/kernel/fp4.h"

#include "mezzotint/base/e2m1.h"
#include "mezzotint/kernel/isa_bf16.h"
#include "mezzotint/kernel/isa_elements.h"
#ifdef __AVX512BW__
#include "mezzotint/kernel/fp4_avx512.h"
#include "mezzotint/kernel/fp4_bounds_avx512.h"
#endif

namespace mezzotint::kernel {
namespace {

constexpr int64_t kBlock = kFp4Block;
constexpr int64_t kChunk = RandomChunk::kCount;  // columns worked on at a time, in scratch on the stack
static_assert(kChunk % kBlock == 0);

/// Codes of a run of columns, one per byte.
struct alignas(64) Chunk {
  float y[kChunk];
  uint8_t codes[kChunk];
};

#ifdef __FMA__
// Scales for which the products below can neither overflow nor lose bits where it would matter.
constexpr float kLeast = 0x1p-60f, kMost = 0x1p60f;

/// x / t, correctly rounded, from the correctly rounded reciprocal: the first correction makes q faithful, the second
/// exact (P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990, theorem 7).
/// Half the time of a division. Quotients too large for the products become NaN, which encodes like inf.
[[gnu::always_inline]] inline float quotient(float x, float t, float reciprocal) {
  float q = x * reciprocal;
  q = __builtin_fmaf(__builtin_fmaf(-q, t, x), reciprocal, q);
  q = __builtin_fmaf(__builtin_fmaf(-q, t, x), reciprocal, q);
  return float_from_bits((float_bits(q) & kFloatMagnitude) | (float_bits(x) & ~static_cast<uint32_t>(kFloatMagnitude)));
}
#endif

/// y = x / t for n <= 16 columns of a block.
template <class From>
[[gnu::always_inline]] inline void divide_some(const typename From::Stored* x, int64_t n, float t, float* y) {
  for (int64_t j = 0; j < n; ++j) y[j] = t == 0 ? 0.0f : From::load(x[j]) / t;
}

/// y = x / t for whole blocks.
template <class From>
[[gnu::noinline]] void divide(const typename From::Stored* __restrict x, int64_t blocks, const Dword* t,
                              float* __restrict y) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float s = float_from_bits(t[b]);
#ifdef __FMA__
    if (s >= kLeast && s <= kMost) {
      const float reciprocal = 1.0f / s;
      for (int64_t j = 0; j < kBlock; ++j) y[b * kBlock + j] = quotient(From::load(x[b * kBlock + j]), s, reciprocal);
      continue;
    }
#endif
    divide_some<From>(x + b * kBlock, kBlock, s, y + b * kBlock);
  }
}

[[gnu::noinline]] void nearest(const float* __restrict y, int64_t n, uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(E2m1::encode(y[i]));
}

[[gnu::noinline]] void stochastic(const float* __restrict y, int64_t n, const uint32_t* __restrict random,
                                  uint8_t* __restrict codes) {
  for (int64_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(E2m1::encode_stochastic(y[i], random[i]));
}

[[gnu::noinline]] void pack(const uint8_t* __restrict codes, int64_t bytes, Byte* __restrict out) {
  for (int64_t k = 0; k < bytes; ++k) out[k] = static_cast<uint8_t>(codes[2 * k] << 4 | codes[2 * k + 1]);
}

[[gnu::noinline]] void unpack(const Byte* __restrict bytes, int64_t count, uint8_t* __restrict codes) {
  for (int64_t k = 0; k < count; ++k) {
    codes[2 * k] = static_cast<uint8_t>(bytes[k] >> 4);
    codes[2 * k + 1] = static_cast<uint8_t>(bytes[k] & 15);
  }
}

/// Nearest codes of at most kChunk columns, whole blocks.
template <class From>
void encode_few_blocks(const typename From::Stored* x, int64_t blocks, const Dword* t, Byte* out) {
  Chunk chunk;
  divide<From>(x, blocks, t, chunk.y);
  nearest(chunk.y, blocks * kBlock, chunk.codes);
  pack(chunk.codes, blocks * kBlock / 2, out);
}

/// Nearest codes of whole blocks.
template <class From>
void encode_blocks(const typename From::Stored* x, int64_t blocks, const Dword* t, Byte* out) {
#ifdef __AVX512BW__
  constexpr int64_t kStep = 16;
#else
  constexpr int64_t kStep = kChunk / kBlock;
#endif
  for (int64_t b; blocks > 0; x += b * kBlock, t += b, out += b * kBlock / 2, blocks -= b) {
    b = smaller(blocks, kStep);
#ifdef __AVX512BW__
    const __m512 factors = b == kStep ? _mm512_loadu_ps(t) : _mm512_setzero_ps();
    const __mmask16 large = _mm512_cmp_ps_mask(factors, _mm512_set1_ps(kLeast), _CMP_GE_OQ);
    if (_mm512_mask_cmp_ps_mask(large, factors, _mm512_set1_ps(kMost), _CMP_LE_OQ) == 0xFFFF) {
      if constexpr (__is_same(From, Bf16Element))
        encode_sixteen_blocks(x, code_bounds(factors), out);
      else
        encode_sixteen_blocks<From>(x, factors, out);
      continue;
    }
#endif
    encode_few_blocks<From>(x, b, t, out);
  }
}

/// Columns [first, end) of one row, at most kChunk from the start of the first one's block; x is of column `first`, t
/// and out are of column 0.
template <class From>
void encode_run(const typename From::Stored* x, int64_t first, int64_t end, const Dword* t, const Rounding& rounding,
                uint64_t index, Byte* out) {
  if (rounding.mode == Rounding::Mode::nearest_even && first % kBlock == 0 && end % kBlock == 0)
    return encode_blocks<From>(x, (end - first) / kBlock, t + first / kBlock, out + first / 2);
  Chunk chunk;
  const int64_t base = first / kBlock * kBlock;
  int64_t col = first;
  while (col < end) {
    const int64_t next = smaller((col / kBlock + 1) * kBlock, end);
    if (next - col < kBlock) {
      divide_some<From>(x + (col - first), next - col, float_from_bits(t[col / kBlock]), chunk.y + (col - base));
      col = next;
    } else {
      const int64_t blocks = (end - col) / kBlock;
      divide<From>(x + (col - first), blocks, t + col / kBlock, chunk.y + (col - base));
      col += blocks * kBlock;
    }
  }
  uint8_t* codes = chunk.codes + (first - base);  // of column `first`
  if (rounding.mode == Rounding::Mode::stochastic) {
    RandomChunk random;
    stochastic(chunk.y + (first - base), end - first, fill_random(rounding.key, index, end - first, random), codes);
  } else {
    nearest(chunk.y + (first - base), end - first, codes);
  }
  if (first % 2 != 0) {
    out[first / 2] = static_cast<uint8_t>((out[first / 2] & 0xF0) | *codes++);
    ++first;
  }
  const int64_t pairs = (end - first) / 2;
  pack(codes, pairs, out + first / 2);
  if (first + 2 * pairs < end) out[end / 2] = static_cast<uint8_t>((out[end / 2] & 0x0F) | codes[2 * pairs] << 4);
}

template <class Out>
[[gnu::noinline]] void scale_block_run(const uint8_t* __restrict codes, int64_t blocks, const Dword* t,
                                       Out* __restrict values) {
  auto* out = elements(values);
  for (int64_t b = 0; b < blocks; ++b) {
    const float s = float_from_bits(t[b]);
    for (int64_t j = 0; j < kBlock; ++j) store_value(E2m1::decode(codes[b * kBlock + j]) * s, out[b * kBlock + j]);
  }
}

/// Decodes blocks from a multiple of kBlock on, as many as go in vectors; returns the column after them.
int64_t decode_blocks([[maybe_unused]] const Byte* codes, int64_t first, [[maybe_unused]] int64_t end,
                      [[maybe_unused]] const Dword* t, [[maybe_unused]] float* out) {
#ifdef __AVX512BW__
  for (; first + kBlock <= end; first += kBlock, out += kBlock)
    _mm512_storeu_ps(
        out, _mm512_mul_ps(decode_block(codes + first / 2), _mm512_set1_ps(float_from_bits(t[first / kBlock]))));
#endif
  return first;
}
[[gnu::noinline]] int64_t decode_blocks([[maybe_unused]] const Byte* codes, int64_t first, [[maybe_unused]] int64_t end,
                                        [[maybe_unused]] const Dword* t, [[maybe_unused]] uint16_t* out) {
#if defined(MEZZOTINT_BF16_VECTORS)
  for (; first + kBf16Step <= end; first += kBf16Step, out += kBf16Step) {
    const Dword* own = t + first / kBlock;
    const float low = float_from_bits(own[0]), high = float_from_bits(own[kBf16Step / kBlock - 1]);
    if (!is_finite(low) || !is_finite(high)) break;
    store_products(E2m1Vector::load(codes + first / 2), low, high, elements(out));
  }
#endif
  return first;
}

template <class Out>
void decode_run(const Byte* codes, int64_t first, int64_t end, const Dword* t, Out* out) {
  if (first % kBlock == 0) {
    const int64_t next = decode_blocks(codes, first, end, t, out);
    out += next - first;
    first = next;
  }
  if (first == end) return;
  Chunk chunk;
  const int64_t base = first / kBlock * kBlock;
  unpack(codes + base / 2, (end - base + 1) / 2, chunk.codes);
  int64_t col = first;
  while (col < end) {
    const int64_t next = smaller((col / kBlock + 1) * kBlock, end);
    if (next - col < kBlock) {
      const float s = float_from_bits(t[col / kBlock]);
      for (; col < next; ++col) store_value(E2m1::decode(chunk.codes[col - base]) * s, elements(out)[col - first]);
    } else {
      const int64_t blocks = (end - col) / kBlock;
      scale_block_run(chunk.codes + (col - base), blocks, t + col / kBlock, out + (col - first));
      col += blocks * kBlock;
    }
  }
}

/// Calls f(row, first column, end, scales of the row) for runs that end at multiples of kChunk; columns are counted
/// from the matrix that the scales belong to.
template <class F>
[[gnu::always_inline]] inline void for_each_chunk(int64_t rows, int64_t cols, const Scales& scales, F&& f) {
  for (int64_t r = 0; r < rows; ++r) {
    const Dword* t = reinterpret_cast<const Dword*>(scales.data + (scales.row0 + r) * scales.stride);
    const int64_t last = scales.col0 + cols;
    for (int64_t col = scales.col0; col < last;) {
      const int64_t end = smaller((col / kChunk + 1) * kChunk, last);
      f(r, col, end, t);
      col = end;
    }
  }
}

}  // namespace

template <>
void encode_fp4<kIsa>(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride,
                      const Rounding& rounding, const ElementIndex& index) {
  with_element(x.dtype, [&]<class From> {
    const auto* data = static_cast<const typename From::Stored*>(x.data);
    const bool whole = scales.col0 % kBlock == 0 && x.cols % kBlock == 0;
    if (whole && rounding.mode == Rounding::Mode::nearest_even) {
      const int64_t first = scales.col0 / kBlock;
      for (int64_t r = 0; r < x.rows; ++r)
        encode_blocks<From>(data + r * x.stride, x.cols / kBlock,
                            reinterpret_cast<const Dword*>(scales.data + (scales.row0 + r) * scales.stride + first),
                            codes + r * codes_stride + first * kBlock / 2);
      return;
    }
    for_each_chunk(x.rows, x.cols, scales, [&](int64_t r, int64_t first, int64_t end, const Dword* t) {
      const int64_t col = first - scales.col0;
      const uint64_t at = index.first + static_cast<uint64_t>(r) * index.row_stride + static_cast<uint64_t>(col);
      encode_run<From>(data + r * x.stride + col, first, end, t, rounding, at, codes + r * codes_stride);
    });
  });
}

template <>
void decode_fp4<kIsa>(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                      float* out, int64_t out_stride) {
  for_each_chunk(rows, cols, scales, [&](int64_t r, int64_t first, int64_t end, const Dword* t) {
    decode_run(codes + r * codes_stride, first, end, t, out + r * out_stride + (first - scales.col0));
  });
}

template <>
void decode_fp4<kIsa>(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                      uint16_t* out, int64_t out_stride) {
  for_each_chunk(rows, cols, scales, [&](int64_t r, int64_t first, int64_t end, const Dword* t) {
    decode_run(codes + r * codes_stride, first, end, t, out + r * out_stride + (first - scales.col0));
  });
}

}  // namespace mezzotint::kernel
