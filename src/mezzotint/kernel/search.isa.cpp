#include "mezzotint/kernel/search.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_lanes.h"
#include "mezzotint/kernel/search_choice.h"

namespace mezzotint::kernel {
namespace {

constexpr int kVectors = 4;
constexpr int64_t kChunk = kVectors * kLanes;
/// Chunks that are added up in float32 before they are folded to float64.
constexpr int kFold = 1024;
constexpr float kTop = 127.0f;

/// Magnitudes of a chunk in units of the absmax scale, and the weights of its columns. What lies beyond the matrix has
/// the value 0, and with it no error.
struct Chunk {
  alignas(64) float x[kChunk];
  alignas(64) float h[kChunk];
};

template <class From>
[[gnu::always_inline]] inline void load_values(const typename From::Stored* from, int64_t n, float inverse, float* x) {
  for (int64_t i = 0; i < n; ++i) {
    const auto magnitude = static_cast<int32_t>(float_bits(From::load(from[i])) & 0x7FFFFFFFu);
    x[i] = float_from_bits(static_cast<uint32_t>(magnitude < kFloatInfBits ? magnitude : 0)) * inverse;
  }
}

template <class From>
[[gnu::noinline]] void load_part(const typename From::Stored* from, const float* weight, int64_t n, float inverse,
                                 Chunk& chunk) {
  for (int64_t i = 0; i < kChunk; ++i) chunk.x[i] = chunk.h[i] = 0;
  load_values<From>(from, n, inverse, chunk.x);
  for (int64_t i = 0; i < n; ++i) chunk.h[i] = weight == nullptr ? 1.0f : weight[i];
}

template <class From, bool kWeighted>
[[gnu::always_inline]] inline void load(const typename From::Stored* from, const float* weight, int64_t n,
                                        float inverse, Chunk& chunk) {
  if (n < kChunk) return load_part<From>(from, weight, n, inverse, chunk);
  load_values<From>(from, kChunk, inverse, chunk.x);
  if (kWeighted)
    for (int64_t i = 0; i < kChunk; ++i) chunk.h[i] = weight[i];
}

/// The largest magnitude of n elements as it is stored; inf and NaN come out on top.
template <class From>
[[gnu::always_inline]] inline float largest(const typename From::Stored* x, int64_t n) {
  using Magnitude = typename From::Magnitude;
  constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
  Magnitude top = 0;
  const auto grow = [&](int64_t i) {
    const auto a = static_cast<Magnitude>(static_cast<Magnitude>(x[i]) & kMask);
    top = a > top ? a : top;
  };
  if (n == kChunk)
    for (int64_t i = 0; i < kChunk; ++i) grow(i);
  else
    for (int64_t i = 0; i < n; ++i) grow(i);
  return From::load(static_cast<typename From::Stored>(top));
}

/// Which chunks hold more than a limit, told from magnitudes as they are stored.
template <class From>
class Above {
  using Magnitude = typename From::Magnitude;
  Magnitude most;  // the largest that fits: m * inverse <= limit

  /// A positive value, about; infinities at most one above the largest.
  [[gnu::always_inline]] static int32_t stored(float x) {
    if (sizeof(Magnitude) == 4) return static_cast<int32_t>(float_bits(x));
    return static_cast<int32_t>(From::kInf == F16Element::kInf ? Fp16::encode(x) : float_bits(x) >> 16);
  }

 public:
  [[gnu::always_inline]] Above(float limit, float inverse) {
    const auto fits = [=](int32_t m) { return From::load(static_cast<typename From::Stored>(m)) * inverse <= limit; };
    int32_t m = smaller(stored(limit / inverse), From::kInf - 1);
    while (m > 0 && !fits(m)) --m;
    while (m + 1 < From::kInf && fits(m + 1)) ++m;
    most = static_cast<Magnitude>(m);
  }

  /// Whether any of n elements is; infinities and NaN are.
  [[gnu::always_inline]] bool operator()(const typename From::Stored* x, int64_t n) const {
    constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
#if defined(__AVX2__)
    // Lines are asked for further ahead than the hardware does, which stops at the end of a page.
    constexpr int64_t kAhead = 6144, kBytes = kChunk * sizeof(Magnitude);
    if (n == kChunk) {
      const char* from = reinterpret_cast<const char*>(x);
      for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(from + kAhead + line);
      return kBytes == 128 ? words_above(from) : dwords_above(from);
    }
#endif
    for (int64_t i = 0; i < n; ++i)
      if (static_cast<Magnitude>(static_cast<Magnitude>(x[i]) & kMask) > most) return true;
    return false;
  }

 private:
#if defined(__AVX512BW__)
  [[gnu::always_inline]] bool words_above(const char* x) const {
    const __m512i mask = _mm512_set1_epi16(0x7FFF);
    const __m512i low = _mm512_and_si512(_mm512_loadu_si512(x), mask);
    const __m512i high = _mm512_and_si512(_mm512_loadu_si512(x + 64), mask);
    return _mm512_cmpgt_epi16_mask(_mm512_max_epi16(low, high), _mm512_set1_epi16(static_cast<int16_t>(most))) != 0;
  }
  [[gnu::always_inline]] bool dwords_above(const char* x) const {
    __m512i top = _mm512_setzero_si512();
    for (int i = 0; i < 256; i += 64)
      top = _mm512_max_epi32(top, _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(kFloatMagnitude)));
    return _mm512_cmpgt_epi32_mask(top, _mm512_set1_epi32(most)) != 0;
  }
#elif defined(__AVX2__)
  [[gnu::always_inline]] static __m256i at(const char* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  }
  [[gnu::always_inline]] bool words_above(const char* x) const {
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 128; i += 32)
      top = _mm256_max_epi16(top, _mm256_and_si256(at(x + i), _mm256_set1_epi16(0x7FFF)));
    return _mm256_movemask_epi8(_mm256_cmpgt_epi16(top, _mm256_set1_epi16(static_cast<int16_t>(most)))) != 0;
  }
  [[gnu::always_inline]] bool dwords_above(const char* x) const {
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 256; i += 32)
      top = _mm256_max_epi32(top, _mm256_and_si256(at(x + i), _mm256_set1_epi32(kFloatMagnitude)));
    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(top, _mm256_set1_epi32(most))) != 0;
  }
#endif
};

/// Sum over a chunk of h * f(x), f from lanes to lanes.
template <bool kWeighted, class F>
[[gnu::always_inline]] inline Lanes chunk_sum(const Chunk& chunk, F&& f) {
  Lanes part[kVectors];
  for (int i = 0; i < kVectors; ++i) {
    part[i] = f(load_lanes(chunk.x + i * kLanes));
    if (kWeighted) part[i] = part[i] * load_lanes(chunk.h + i * kLanes);
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

[[gnu::always_inline]] inline Lanes code(Lanes x, float inverse) {
  return round_to_even(smaller_of(x * inverse, kTop));
}
template <bool kWeighted>
[[gnu::always_inline]] inline Lanes squared_error(const Chunk& chunk, float factor) {
  const float inverse = 1.0f / factor;
  return chunk_sum<kWeighted>(chunk, [&](Lanes x) {
    const Lanes e = x - code(x, inverse) * factor;
    return e * e;
  });
}
template <bool kWeighted>
[[gnu::always_inline]] inline Lanes squared_excess(const Chunk& chunk, float limit) {
  return chunk_sum<kWeighted>(chunk, [&](Lanes x) {
    const Lanes excess = larger_of(x - limit, 0);
    return excess * excess;
  });
}

/// A rectangle of the source with its scale.
template <class From>
struct Block {
  const typename From::Stored* data;
  const float* weight;  // of its first column, or null
  int64_t rows, cols, stride;
  float inverse;  // 1 / absmax scale

  int64_t chunks() const { return rows * ((cols + kChunk - 1) / kChunk); }
};

/// Calls visit(row, first column, columns, whether it is one of the sample) for every chunk, or only for those of the
/// sample: one in `every`, counted along a row and on from row to row. row0 numbers the first row.
template <class From, class Visit>
[[gnu::always_inline]] inline void for_each_chunk(const Block<From>& block, int64_t row0, int64_t every,
                                                  bool sample_only, Visit&& visit) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const typename From::Stored* row = block.data + r * block.stride;
    int64_t next = (every - (row0 + r) % every) % every * kChunk;
    for (int64_t c = sample_only ? next : 0; c < block.cols; c += sample_only ? every * kChunk : kChunk) {
      const bool chosen = c == next;
      if (chosen) next += every * kChunk;
      visit(row + c, c, smaller(kChunk, block.cols - c), chosen);
    }
  }
}
template <class From, class Visit>
[[gnu::always_inline]] inline void for_each_chunk(const Block<From>& block, Visit&& visit) {
  for_each_chunk(block, 0, 1, true, [&](const auto* x, int64_t c, int64_t n, bool) { visit(x, c, n); });
}

/// Sums in lanes that are folded to float64 now and then.
template <int kCount>
struct Sums {
  Lanes lane[kCount] = {};
  double sum[kCount] = {};
  int used = 0;  // lanes from here on may hold something, and lane 0
  int waiting = 0;

  void fold_one(int j) {
    sum[j] += static_cast<double>(add_lanes(lane[j]));
    lane[j] = Lanes{};
  }
  void fold() {
    if (used > 0) fold_one(0);
    for (int j = used; j < kCount; ++j) fold_one(j);
    waiting = 0;
  }
  [[gnu::always_inline]] void added() {
    if (++waiting == kFold) fold();
  }
};

/// Adds what the factors 1 ... last clip of a chunk whose largest element is `top`.
template <bool kWeighted>
[[gnu::always_inline]] inline void add_excess(const Chunk& chunk, float top, int last, Sums<kScaleFactors>& sums) {
  int j = last;
  for (; j > 0; --j) {
    const float limit = kTop * kScaleFactor[j];
    if (top <= limit) break;
    sums.lane[j] = sums.lane[j] + squared_excess<kWeighted>(chunk, limit);
  }
  sums.used = smaller(sums.used, j + 1);
  sums.added();
}

/// Errors of all factors over the whole block.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_all(const Block<From>& block, double* errors) {
  Sums<kScaleFactors> sums;
  Chunk chunk;
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t n) {
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    for (int j = 0; j < kScaleFactors; ++j)
      sums.lane[j] = sums.lane[j] + squared_error<kWeighted>(chunk, kScaleFactor[j]);
    sums.added();
  });
  sums.fold();
  for (int j = 0; j < kScaleFactors; ++j) errors[j] = sums.sum[j];
}

/// Of a sample: asks for the chunk that will be looked at a few later.
template <class From>
[[gnu::always_inline]] inline void prefetch_sampled(const typename From::Stored* x, int64_t every) {
  for (int64_t i = 0; i < kChunk; i += 64 / static_cast<int64_t>(sizeof(*x)))
    __builtin_prefetch(x + 8 * every * kChunk + i);
}

/// Clipping errors of all factors below 1 and, first, the error of absmax, both from a sample of one chunk in `every`;
/// clipping errors also from all chunks with anything above `hot`, unless there are none.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_sample(const Block<From>& block, int64_t row0, int64_t every, float hot, bool none_hot,
                                      double* errors) {
  Sums<kScaleFactors> sampled, exact;
  sampled.used = exact.used = kScaleFactors;
  Chunk chunk;
  const Above<From> is_hot(hot, block.inverse);
  for_each_chunk(block, row0, every, none_hot, [&](const auto* x, int64_t c, int64_t n, bool chosen) {
    if (none_hot) prefetch_sampled<From>(x, every);
    const bool whole = !none_hot && is_hot(x, n);
    if (!chosen && !whole) return;
    const float top = largest<From>(x, n) * block.inverse;
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    add_excess<kWeighted>(chunk, top, kScaleFactors - 1, whole ? exact : sampled);
    if (!chosen) return;
    sampled.lane[0] = sampled.lane[0] + squared_error<kWeighted>(chunk, 1.0f);
    sampled.added();
  });
  sampled.fold();
  exact.fold();
  for (int j = 0; j < kScaleFactors; ++j) errors[j] = sampled.sum[j] * static_cast<double>(every) + exact.sum[j];
}

/// The sampled errors of a block alone. Factors whose clipping in the first few chunks costs more than no clipping can
/// cost in all are given up; their errors stay above all others.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_block_sample(const Block<From>& block, double total_weight, double* errors) {
  constexpr int64_t kFew = 4;
  Sums<kScaleFactors> sums;
  sums.used = kScaleFactors;
  Chunk chunk;
  int last = kScaleFactors - 1;
  int64_t seen = 0;
  for_each_chunk(block, 0, kBlockSample, true, [&](const auto* x, int64_t c, int64_t n, bool) {
    const float top = largest<From>(x, n) * block.inverse;
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    add_excess<kWeighted>(chunk, top, last, sums);
    sums.lane[0] = sums.lane[0] + squared_error<kWeighted>(chunk, 1.0f);
    sums.added();
    if (++seen != kFew) return;
    sums.fold();
    while (last > 1 && sums.sum[last] * kBlockSample > total_weight / 4) --last;
  });
  sums.fold();
  for (int j = 0; j < kScaleFactors; ++j) errors[j] = sums.sum[j] * static_cast<double>(kBlockSample);
}

/// Clipping errors of the factors 1 ... last over the whole block.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_clipping(const Block<From>& block, int last, double* errors) {
  Sums<kScaleFactors> sums;
  sums.used = kScaleFactors;
  Chunk chunk;
  const Above<From> is_clipped(kTop * kScaleFactor[last], block.inverse);
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t n) {
    if (!is_clipped(x, n)) return;
    const float top = largest<From>(x, n) * block.inverse;
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    add_excess<kWeighted>(chunk, top, last, sums);
  });
  sums.fold();
  for (int j = 1; j <= last; ++j) errors[j] = sums.sum[j];
}

template <bool kWeighted>
[[gnu::always_inline]] inline void add_moments(const Chunk& chunk, float factor, Sums<kScaleMoments>& sums) {
  const float inverse = 1.0f / factor;
  sums.lane[0] = sums.lane[0] + squared_error<kWeighted>(chunk, factor);
  sums.lane[1] = sums.lane[1] + chunk_sum<kWeighted>(chunk, [&](Lanes v) { return code(v, inverse) * v; });
  sums.lane[2] = sums.lane[2] + chunk_sum<kWeighted>(chunk, [&](Lanes v) {
                   const Lanes q = code(v, inverse);
                   return q * q;
                 });
  sums.added();
}

/// Error, <q, w>, <q, q> of a factor over the whole block.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_moments(const Block<From>& block, float factor, double* moments) {
  Sums<kScaleMoments> sums;
  Chunk chunk;
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t n) {
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    add_moments<kWeighted>(chunk, factor, sums);
  });
  sums.fold();
  for (int j = 0; j < kScaleMoments; ++j) moments[j] = sums.sum[j];
}

/// The same of factor 1, sampled as in measure_sample.
template <class From, bool kWeighted>
[[gnu::noinline]] void sample_moments(const Block<From>& block, int64_t row0, int64_t every, float hot, bool none_hot,
                                      double* moments) {
  Sums<kScaleMoments> sampled, exact;
  Chunk chunk;
  const Above<From> is_hot(hot, block.inverse);
  for_each_chunk(block, row0, every, none_hot, [&](const auto* x, int64_t c, int64_t n, bool chosen) {
    if (none_hot) prefetch_sampled<From>(x, every);
    const bool whole = !none_hot && is_hot(x, n);
    if (!chosen && !whole) return;
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    add_moments<kWeighted>(chunk, 1.0f, whole ? exact : sampled);
  });
  sampled.fold();
  exact.fold();
  for (int j = 0; j < kScaleMoments; ++j) moments[j] = sampled.sum[j] * static_cast<double>(every) + exact.sum[j];
}

template <class From, bool kWeighted>
double total_weight(const Block<From>& block) {
  auto weight = static_cast<double>(block.cols);
  if (kWeighted) {
    weight = 0;
    for (int64_t c = 0; c < block.cols; ++c) weight += static_cast<double>(block.weight[c]);
  }
  return weight * static_cast<double>(block.rows);
}

template <class From, bool kWeighted>
float search_fast(const Block<From>& block) {
  double errors[kScaleStats];
  errors[kScaleFactors] = total_weight<From, kWeighted>(block);
  measure_block_sample<From, kWeighted>(block, errors[kScaleFactors], errors);
  // The sample misses most outliers, so the least error is seldom at a smaller factor; then it is looked for there.
  int best = best_factor(errors, ScaleSearch::fast, 1), last = 0;
  do {
    last = best + 1 < kScaleFactors ? best + 1 : best;
    measure_clipping<From, kWeighted>(block, last, errors);
    best = best_factor(errors, ScaleSearch::fast, 0, last);
  } while (best == last && last + 1 < kScaleFactors);
  return kScaleFactor[best];
}

template <class From, bool kWeighted>
float search_full(const Block<From>& block) {
  double errors[kScaleStats];
  measure_all<From, kWeighted>(block, errors);
  errors[kScaleFactors] = 0;
  float factor = kScaleFactor[best_factor(errors, ScaleSearch::full)];
  double moments[kScaleMoments];
  measure_moments<From, kWeighted>(block, factor, moments);
  for (int i = 0; i < 2; ++i) {
    const auto next = static_cast<float>(least_squares(moments));
    double polished[kScaleMoments];
    measure_moments<From, kWeighted>(block, next, polished);
    if (!(polished[0] < moments[0])) break;
    for (int j = 0; j < kScaleMoments; ++j) moments[j] = polished[j];
    factor = next;
  }
  return factor;
}

/// Calls f.operator()<From, kWeighted>() for a source and its column weights.
template <class F>
[[gnu::always_inline]] inline void with_kind(const Source& x, const float* column_weight, F&& f) {
  with_element(x.dtype, [&]<class From> {
    if (column_weight != nullptr)
      f.template operator()<From, true>();
    else
      f.template operator()<From, false>();
  });
}

template <class From>
Block<From> row_block(const Source& x, int64_t r, const float* column_weight, float scale) {
  return {static_cast<const typename From::Stored*>(x.data) + r * x.stride,
          column_weight,
          1,
          x.cols,
          x.stride,
          1.0f / scale};
}

}  // namespace

template <>
void search_int8_blocks<kIsa>(const Source& x, int64_t block_rows, int64_t block_cols, const float* column_weight,
                              ScaleSearch search, float floor, float* scales, int64_t stride) {
  with_kind(x, column_weight, [&]<class From, bool kWeighted> {
    const auto* data = static_cast<const typename From::Stored*>(x.data);
    for (int64_t r = 0; r < x.rows; r += block_rows)
      for (int64_t c = 0; c < x.cols; c += block_cols) {
        float& scale = scales[r / block_rows * stride + c / block_cols];
        if (!(scale > floor)) continue;
        const Block<From> block = {data + r * x.stride + c,
                                   kWeighted ? column_weight + c : nullptr,
                                   smaller(block_rows, x.rows - r),
                                   smaller(block_cols, x.cols - c),
                                   x.stride,
                                   1.0f / scale};
        if (search == ScaleSearch::fast && block.rows * block.cols < kFastSearchLeast) continue;
        const float better = scale * (search == ScaleSearch::fast ? search_fast<From, kWeighted>(block)
                                                                  : search_full<From, kWeighted>(block));
        if (better > floor) scale = better;
      }
  });
}

template <>
void int8_scale_stats<kIsa>(const Source& x, int64_t row0, float scale, const float* row_amax,
                            const float* column_weight, ScaleSearch search, float* stats) {
  with_kind(x, column_weight, [&]<class From, bool kWeighted> {
    constexpr float kHot = kTop * kHotFactor;
    for (int64_t r = 0; r < x.rows; ++r) {
      const Block<From> block = row_block<From>(x, r, column_weight, scale);
      double errors[kScaleStats];
      if (search == ScaleSearch::fast)
        measure_sample<From, kWeighted>(block, row0 + r, kWeightSample, kHot, row_amax[r] * block.inverse <= kHot,
                                        errors);
      else
        measure_all<From, kWeighted>(block, errors);
      errors[kScaleFactors] = total_weight<From, kWeighted>(block);
      for (int j = 0; j < kScaleStats; ++j) stats[r * kScaleStats + j] = static_cast<float>(errors[j]);
    }
  });
}

template <>
void int8_scale_moments<kIsa>(const Source& x, int64_t row0, float scale, const float* row_amax,
                              const float* column_weight, ScaleSearch search, float* moments) {
  with_kind(x, column_weight, [&]<class From, bool kWeighted> {
    constexpr float kHot = kTop * kHotMoments;
    for (int64_t r = 0; r < x.rows; ++r) {
      const Block<From> block = row_block<From>(x, r, column_weight, scale);
      double row[kScaleMoments];
      if (search == ScaleSearch::fast)
        sample_moments<From, kWeighted>(block, row0 + r, kWeightSample, kHot, row_amax[r] * block.inverse <= kHot, row);
      else
        measure_moments<From, kWeighted>(block, 1.0f, row);
      for (int j = 0; j < kScaleMoments; ++j) moments[r * kScaleMoments + j] = static_cast<float>(row[j]);
    }
  });
}

}  // namespace mezzotint::kernel
