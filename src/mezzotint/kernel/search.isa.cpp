#include "mezzotint/kernel/search.h"

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

/// Calls visit(row, first column, chunk number in its row, columns, whether to fold the sums now) for every chunk.
template <class From, class Visit>
[[gnu::always_inline]] inline void for_each_chunk(const Block<From>& block, Visit&& visit) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const typename From::Stored* row = block.data + r * block.stride;
    for (int64_t c = 0, i = 0; c < block.cols; c += kChunk, ++i)
      visit(row + c, c, r + i, smaller(kChunk, block.cols - c));
  }
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
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t, int64_t n) {
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    for (int j = 0; j < kScaleFactors; ++j)
      sums.lane[j] = sums.lane[j] + squared_error<kWeighted>(chunk, kScaleFactor[j]);
    sums.added();
  });
  sums.fold();
  for (int j = 0; j < kScaleFactors; ++j) errors[j] = sums.sum[j];
}

/// Clipping errors of all factors below 1 and, first, the error of absmax, both from every kSample-th chunk; clipping
/// errors also from all chunks with anything that kHot would clip.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_sample(const Block<From>& block, int64_t row0, int64_t every, float hot,
                                      double* errors) {
  Sums<kScaleFactors> sampled, exact;
  sampled.used = exact.used = kScaleFactors;
  Chunk chunk;
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t number, int64_t n) {
    const bool chosen = (row0 + number) % every == 0;
    if (!chosen && hot >= kTop) return;
    const float top = largest<From>(x, n) * block.inverse;
    const bool whole = !(top <= hot);
    if (!chosen && !whole) return;
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

/// Clipping errors of the factors 1 ... last over the whole block.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_clipping(const Block<From>& block, int last, double* errors) {
  Sums<kScaleFactors> sums;
  sums.used = kScaleFactors;
  Chunk chunk;
  const float least = kTop * kScaleFactor[last];
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t, int64_t n) {
    const float top = largest<From>(x, n) * block.inverse;
    if (top <= least) return;
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    add_excess<kWeighted>(chunk, top, last, sums);
  });
  sums.fold();
  for (int j = 1; j <= last; ++j) errors[j] = sums.sum[j];
}

/// Error, <q, w>, <q, q> of a factor over the whole block.
template <class From, bool kWeighted>
[[gnu::noinline]] void measure_moments(const Block<From>& block, float factor, double* moments) {
  Sums<kScaleMoments> sums;
  Chunk chunk;
  const float inverse = 1.0f / factor;
  for_each_chunk(block, [&](const auto* x, int64_t c, int64_t, int64_t n) {
    load<From, kWeighted>(x, kWeighted ? block.weight + c : nullptr, n, block.inverse, chunk);
    sums.lane[0] = sums.lane[0] + squared_error<kWeighted>(chunk, factor);
    sums.lane[1] = sums.lane[1] + chunk_sum<kWeighted>(chunk, [&](Lanes v) { return code(v, inverse) * v; });
    sums.lane[2] = sums.lane[2] + chunk_sum<kWeighted>(chunk, [&](Lanes v) {
                     const Lanes q = code(v, inverse);
                     return q * q;
                   });
    sums.added();
  });
  sums.fold();
  for (int j = 0; j < kScaleMoments; ++j) moments[j] = sums.sum[j];
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
  measure_sample<From, kWeighted>(block, 0, kScaleSample, kTop, errors);
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
void int8_scale_stats<kIsa>(const Source& x, int64_t row0, float scale, const float* column_weight, ScaleSearch search,
                            float* stats) {
  with_kind(x, column_weight, [&]<class From, bool kWeighted> {
    for (int64_t r = 0; r < x.rows; ++r) {
      const Block<From> block = row_block<From>(x, r, column_weight, scale);
      double errors[kScaleStats];
      if (search == ScaleSearch::fast)
        measure_sample<From, kWeighted>(block, row0 + r, kScaleSample, kTop * kHotFactor, errors);
      else
        measure_all<From, kWeighted>(block, errors);
      errors[kScaleFactors] = total_weight<From, kWeighted>(block);
      for (int j = 0; j < kScaleStats; ++j) stats[r * kScaleStats + j] = static_cast<float>(errors[j]);
    }
  });
}

template <>
void int8_scale_moments<kIsa>(const Source& x, float scale, const float* column_weight, float* moments) {
  with_kind(x, column_weight, [&]<class From, bool kWeighted> {
    for (int64_t r = 0; r < x.rows; ++r) {
      double row[kScaleMoments];
      measure_moments<From, kWeighted>(row_block<From>(x, r, column_weight, scale), 1.0f, row);
      for (int j = 0; j < kScaleMoments; ++j) moments[r * kScaleMoments + j] = static_cast<float>(row[j]);
    }
  });
}

}  // namespace mezzotint::kernel
