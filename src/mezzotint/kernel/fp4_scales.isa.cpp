#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_max.h"
#ifdef __AVX512BW__
#include "mezzotint/kernel/fp4_scales_avx512.h"
#endif

namespace mezzotint::kernel {
namespace {

constexpr int64_t kBlock = kFp4Block;
constexpr int64_t kChunk = 64;  // blocks worked on at a time, in scratch on the stack
constexpr float kLargestCode = 6.0f, kLargestScale = 448.0f;
constexpr float kSmallestScale = E4m3::kStep;

/// Largest magnitude of every block, as bits; inf and NaN are on top.
template <class Element>
[[gnu::noinline]] void block_tops(const typename Element::Stored* __restrict x, int64_t blocks,
                                  typename Element::Magnitude* __restrict tops) {
  using Magnitude = typename Element::Magnitude;
  constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
  int64_t done = 0;
#ifdef __AVX512BW__
  if constexpr (sizeof(Magnitude) == 2)
    for (; done + 16 <= blocks; done += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(tops + done),
                          _mm512_cvtepi32_epi16(sixteen_tops<kBlock>(x + done * kBlock)));
#endif
  for (int64_t b = done; b < blocks; ++b) {
    Magnitude top = 0;
    for (int64_t j = 0; j < kBlock; ++j) {
      const auto a = static_cast<Magnitude>(static_cast<Magnitude>(x[b * kBlock + j]) & kMask);
      top = a > top ? a : top;
    }
    tops[b] = top;
  }
}

/// Largest finite magnitude of n <= 16 elements.
template <class Element>
typename Element::Magnitude finite_top(const typename Element::Stored* x, int64_t n, bool& non_finite) {
  using Magnitude = typename Element::Magnitude;
  constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
  Magnitude top = 0;
  for (int64_t j = 0; j < n; ++j) {
    const auto a = static_cast<Magnitude>(static_cast<Magnitude>(x[j]) & kMask);
    non_finite |= a >= Element::kInf;
    top = a < Element::kInf && a > top ? a : top;
  }
  return top;
}

template <class Element>
[[gnu::noinline]] void scales_of(const typename Element::Magnitude* __restrict tops, int64_t blocks, float global,
                                 Byte* __restrict scales) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float amax = Element::load(static_cast<typename Element::Stored>(tops[b]));
    scales[b] = static_cast<uint8_t>(E4m3::encode_saturating(amax / kLargestCode / global));
  }
}

template <class Element>
bool plain_row(const typename Element::Stored* x, int64_t cols, float global, Byte* scales) {
  bool non_finite = false;
  typename Element::Magnitude tops[kChunk];
  for (int64_t col = 0, n; col < cols; col += n) {
#ifdef __AVX512BW__
    if constexpr (__is_same(Element, Bf16Element)) {
      constexpr int64_t kGroup = 16 * kBlock;
      const int64_t groups = (cols - col) / kGroup;
      col += kGroup * plain_sixteen_blocks(x + col, groups, global, scales + col / kBlock);
    }
#endif
    n = smaller(cols - col, kChunk * kBlock);
    const int64_t whole = n / kBlock;
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    block_tops<Element>(x + col, whole, tops);
    bool redo = blocks != whole;
    for (int64_t b = 0; b < whole; ++b) redo |= tops[b] >= Element::kInf;
    for (int64_t b = 0; redo && b < blocks; ++b)
      if (b == whole || tops[b] >= Element::kInf)
        tops[b] = finite_top<Element>(x + col + b * kBlock, smaller(n - b * kBlock, kBlock), non_finite);
    scales_of<Element>(tops, blocks, global, scales + col / kBlock);
  }
  return non_finite;
}

// --- search -------------------------------------------------------------------------------------------------------

constexpr int kLanes = 16;  // blocks side by side

/// Sixteen blocks, transposed: lane b is block b. Nothing here depends on how many lanes a vector has, and every lane
/// adds up its block in the order of columns.
struct alignas(64) Blocks {
  float x[kBlock][kLanes];       // 0 where not finite, and beyond the matrix
  float weight[kBlock][kLanes];  // of the columns
  float base[kLanes];            // (amax / 6) / global
  float best_error[kLanes];
  float best[kLanes];  // scale, as float
};

/// The E2M1 value nearest to a magnitude, ties to even: adding 1.5 * 2^22 * 2^e leaves multiples of 2^(e - 1), the
/// distance of E2M1 values from 2^e (and below 2).
[[gnu::always_inline]] inline float nearest_value(float magnitude) {
  const float a = magnitude < kLargestCode ? magnitude : kLargestCode;
  const auto exponent = static_cast<int32_t>(float_bits(a) & 0x7F800000);
  const int32_t at_least_one = exponent > 0x3F800000 ? exponent : 0x3F800000;
  const float magic = float_from_bits(static_cast<uint32_t>(at_least_one) + (22u << 23) + 0x400000u);
  return (a + magic) - magic;
}
[[gnu::always_inline]] inline float absolute(float x) {
  return float_from_bits(float_bits(x) & kFloatMagnitude);
}

/// e4m3(scale) as float, at least the smallest.
[[gnu::always_inline]] inline float storable(float scale) {
  const float at_least = scale > kSmallestScale ? scale : kSmallestScale;
  return E4m3::decode(E4m3::encode_saturating(at_least));
}

template <bool Weighted>
[[gnu::noinline]] void try_scales(Blocks& blocks, const float* __restrict scales, float global) {
  alignas(64) float reciprocal[kLanes], error[kLanes];
  for (int b = 0; b < kLanes; ++b) {
    reciprocal[b] = 1.0f / (global * scales[b]);
    error[b] = 0;
  }
  for (int j = 0; j < kBlock; ++j)
    for (int b = 0; b < kLanes; ++b) {
      const float y = absolute(blocks.x[j][b]) * reciprocal[b];
      const float d = nearest_value(y) - y;
      error[b] += Weighted ? blocks.weight[j][b] * (d * d) : d * d;
    }
  for (int b = 0; b < kLanes; ++b) {
    const float e = error[b] * (scales[b] * scales[b]);  // in units of global^2; NaN is not better
    const bool better = e < blocks.best_error[b];
    blocks.best_error[b] = better ? e : blocks.best_error[b];
    blocks.best[b] = better ? scales[b] : blocks.best[b];
  }
}

template <bool Weighted>
[[gnu::noinline]] void try_factor(Blocks& blocks, float factor, float global) {
  alignas(64) float scales[kLanes];
  for (int b = 0; b < kLanes; ++b) scales[b] = storable(blocks.base[b] * factor);
  try_scales<Weighted>(blocks, scales, global);
}

/// Tries <q, x> / <q, q>, the scale that fits the codes of the best one.
template <bool Weighted>
[[gnu::noinline]] void try_least_squares(Blocks& blocks, float global) {
  alignas(64) float reciprocal[kLanes], qy[kLanes], qq[kLanes], scales[kLanes];
  for (int b = 0; b < kLanes; ++b) {
    reciprocal[b] = 1.0f / (global * blocks.best[b]);
    qy[b] = qq[b] = 0;
  }
  for (int j = 0; j < kBlock; ++j)
    for (int b = 0; b < kLanes; ++b) {
      const float y = absolute(blocks.x[j][b]) * reciprocal[b];
      const float q = nearest_value(y);
      const float h = Weighted ? blocks.weight[j][b] * q : q;
      qy[b] += h * y;
      qq[b] += h * q;
    }
  for (int b = 0; b < kLanes; ++b) {
    const float fit = blocks.best[b] * (qy[b] / qq[b]);
    scales[b] = storable(qq[b] > 0 ? fit : blocks.best[b]);
  }
  try_scales<Weighted>(blocks, scales, global);
}

/// out[j][b] = rows[16 b + j]
[[gnu::noinline]] void transpose(const float* __restrict rows, float (*__restrict out)[kLanes]) {
#if defined(__AVX512BW__)
  __m512 t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    const __m512 a = _mm512_load_ps(rows + 16 * i), b = _mm512_load_ps(rows + 16 * i + 16);
    t[i] = _mm512_unpacklo_ps(a, b);
    t[i + 1] = _mm512_unpackhi_ps(a, b);
  }
  const auto low = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  for (int i = 0; i < 16; i += 4) {  // u[i + k], lane group L: column 4 L + k of rows i to i + 3
    u[i] = low(t[i], t[i + 2]);
    u[i + 1] = high(t[i], t[i + 2]);
    u[i + 2] = low(t[i + 1], t[i + 3]);
    u[i + 3] = high(t[i + 1], t[i + 3]);
  }
  for (int k = 0; k < 4; ++k) {
    const __m512 a = _mm512_shuffle_f32x4(u[k], u[4 + k], 0x88), b = _mm512_shuffle_f32x4(u[k], u[4 + k], 0xDD);
    const __m512 c = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0x88),
                 d = _mm512_shuffle_f32x4(u[8 + k], u[12 + k], 0xDD);
    _mm512_store_ps(out[k], _mm512_shuffle_f32x4(a, c, 0x88));
    _mm512_store_ps(out[4 + k], _mm512_shuffle_f32x4(b, d, 0x88));
    _mm512_store_ps(out[8 + k], _mm512_shuffle_f32x4(a, c, 0xDD));
    _mm512_store_ps(out[12 + k], _mm512_shuffle_f32x4(b, d, 0xDD));
  }
#elif defined(__AVX2__)
  for (int row = 0; row < 16; row += 8)
    for (int col = 0; col < 16; col += 8) {
      __m256 t[8], u[8];
      for (int i = 0; i < 8; i += 2) {
        const __m256 a = _mm256_load_ps(rows + 16 * (row + i) + col);
        const __m256 b = _mm256_load_ps(rows + 16 * (row + i + 1) + col);
        t[i] = _mm256_unpacklo_ps(a, b);
        t[i + 1] = _mm256_unpackhi_ps(a, b);
      }
      for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
      }
      for (int k = 0; k < 4; ++k) {
        _mm256_store_ps(out[col + k] + row, _mm256_permute2f128_ps(u[k], u[4 + k], 0x20));
        _mm256_store_ps(out[col + 4 + k] + row, _mm256_permute2f128_ps(u[k], u[4 + k], 0x31));
      }
    }
#else
  for (int j = 0; j < kBlock; ++j)
    for (int b = 0; b < kLanes; ++b) out[j][b] = rows[b * kBlock + j];
#endif
}

/// Widens n columns, 0 for what is not finite. Returns whether there is any.
template <class Element>
[[gnu::noinline]] bool widen_finite(const typename Element::Stored* __restrict x, int64_t n, float* __restrict out) {
  int32_t non_finite = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = float_bits(Element::load(x[i]));
    const bool bad = static_cast<int32_t>(bits & kFloatMagnitude) >= kFloatInfBits;
    out[i] = float_from_bits(bad ? 0 : bits);
    non_finite |= bad ? 1 : 0;
  }
  return non_finite != 0;
}

[[gnu::noinline]] void start(Blocks& blocks, float global) {
  alignas(64) int32_t amax[kLanes];  // bits, which are ordered like the magnitudes
  for (int b = 0; b < kLanes; ++b) amax[b] = 0;
#pragma GCC unroll 1
  for (int j = 0; j < kBlock; ++j)
    for (int b = 0; b < kLanes; ++b) {
      const auto a = static_cast<int32_t>(float_bits(blocks.x[j][b]) & kFloatMagnitude);
      amax[b] = a > amax[b] ? a : amax[b];
    }
  for (int b = 0; b < kLanes; ++b) {
    const float base = float_from_bits(static_cast<uint32_t>(amax[b])) / kLargestCode / global;
    blocks.base[b] = base;
    blocks.best[b] = storable(base);
    blocks.best_error[b] = float_from_bits(kFloatInfBits);
  }
}

/// Codes of the best scales; 0 for blocks of zeros.
[[gnu::noinline]] void best_codes(const Blocks& blocks, uint8_t* __restrict codes) {
  for (int b = 0; b < kLanes; ++b) {
    const uint32_t code = E4m3::encode_saturating(blocks.best[b]);
    codes[b] = static_cast<uint8_t>(blocks.base[b] == 0 ? 0 : code);
  }
}

/// Up to 16 blocks of a row, n columns. Returns whether an inf or NaN was seen.
template <class Element>
bool load(const typename Element::Stored* x, int64_t n, const float* column_weight, float global, Blocks& blocks) {
  alignas(64) float row[kLanes * kBlock];
  const bool non_finite = widen_finite<Element>(x, n, row);
  for (int64_t i = n; i < kLanes * kBlock; ++i) row[i] = 0;
  transpose(row, blocks.x);
  start(blocks, global);
  if (column_weight == nullptr) return non_finite;
  for (int64_t i = 0; i < kLanes * kBlock; ++i) row[i] = i < n ? column_weight[i] : 0.0f;
  transpose(row, blocks.weight);
  return non_finite;
}

template <bool Weighted>
void search(Blocks& blocks, Fp4Search how, float global) {
  constexpr float kTwo[] = {1.0f, 1.5f};
  constexpr float kThirteen[] = {0.78f, 0.84f, 0.9f, 0.95f, 1.0f, 1.06f, 1.12f, 1.19f, 1.26f, 1.33f, 1.4f, 1.5f, 1.6f};
  if (how == Fp4Search::two) {
    for (const float factor : kTwo) try_factor<Weighted>(blocks, factor, global);
    return;
  }
  for (const float factor : kThirteen) try_factor<Weighted>(blocks, factor, global);
  try_least_squares<Weighted>(blocks, global);
}

template <class Element>
bool search_row(const typename Element::Stored* x, int64_t cols, float global, const float* column_weight,
                Fp4Search how, Byte* scales) {
  Blocks blocks;
  bool non_finite = false;
  for (int64_t col = 0; col < cols; col += kLanes * kBlock) {
    const int64_t n = smaller(cols - col, kLanes * kBlock);
#ifdef __AVX512BW__
    if constexpr (__is_same(Element, Bf16Element))
      if (how == Fp4Search::two && column_weight == nullptr && n == kLanes * kBlock &&
          search_sixteen_blocks(x + col, global, scales + col / kBlock))
        continue;
#endif
    non_finite |= load<Element>(x + col, n, column_weight == nullptr ? nullptr : column_weight + col, global, blocks);
    if (column_weight == nullptr)
      search<false>(blocks, how, global);
    else
      search<true>(blocks, how, global);
    uint8_t codes[kLanes];
    best_codes(blocks, codes);
    for (int64_t b = 0; b * kBlock < n; ++b) scales[col / kBlock + b] = codes[b];
  }
  return non_finite;
}

}  // namespace

template <>
bool fp4_scales<kIsa>(const Source& x, float global, uint8_t* scales, int64_t stride) {
  bool non_finite = false;
  with_element(x.dtype, [&]<class Element> {
    const auto* data = static_cast<const typename Element::Stored*>(x.data);
    for (int64_t r = 0; r < x.rows; ++r)
      non_finite |= plain_row<Element>(data + r * x.stride, x.cols, global, scales + r * stride);
  });
  return non_finite;
}

template <>
bool search_fp4_scales<kIsa>(const Source& x, float global, const float* column_weight, Fp4Search search,
                             uint8_t* scales, int64_t stride) {
  bool non_finite = false;
  with_element(x.dtype, [&]<class Element> {
    const auto* data = static_cast<const typename Element::Stored*>(x.data);
    for (int64_t r = 0; r < x.rows; ++r)
      non_finite |=
          search_row<Element>(data + r * x.stride, x.cols, global, column_weight, search, scales + r * stride);
  });
  return non_finite;
}

}  // namespace mezzotint::kernel
