#include "mezzotint/kernel/codebook.h"
#include "mezzotint/kernel/codebook_levels.h"

namespace mezzotint::kernel {
namespace {

constexpr float kSmallest = 1e-8f;
constexpr int kRounds = 2;

/// Floats in the order of their values as integers.
[[gnu::always_inline]] inline int32_t rank(float x) {
  const auto bits = static_cast<int32_t>(float_bits(x));
  return bits < 0 ? static_cast<int32_t>(0x80000000u - static_cast<uint32_t>(bits)) : bits;
}
[[gnu::always_inline]] inline float of_rank(int32_t rank) {
  return float_from_bits(rank < 0 ? 0x80000000u - static_cast<uint32_t>(rank) : static_cast<uint32_t>(rank));
}
[[gnu::always_inline]] inline float distance(float a, float b) {
  return a > b ? a - b : b - a;
}

/// The largest value that does not differ less from `high` than from `low`, differences rounded to float32.
[[gnu::noinline]] float threshold_between(float low, float high) {
  if (!(low < high)) return low;
  int64_t no = rank(low), yes = rank(high);
  while (yes - no > 1) {
    const int64_t middle = no + (yes - no) / 2;
    const float x = of_rank(static_cast<int32_t>(middle));
    if (distance(x, high) < distance(x, low)) {
      yes = middle;
    } else {
      no = middle;
    }
  }
  return of_rank(static_cast<int32_t>(no));
}

/// Sixteen groups of a row beside each other: lane l of values[j] is column j of group first + l.
struct Groups {
  alignas(64) float values[kLargestLevelGroup * kLanes];
  int64_t size;

  [[gnu::noinline]] void load(const float* x, int64_t group, int64_t count) {
    size = group;
    if (count < kLanes)
      for (int64_t i = 0; i < group * kLanes; ++i) values[i] = 0;
    for (int64_t l = 0; l < count; ++l)
      for (int64_t j = 0; j < group; ++j) {
        const float v = x[l * group + j];
        values[j * kLanes + l] = v - v == 0 ? v : 0.0f;
      }
  }
  [[gnu::always_inline]] Lanes at(int64_t j) const { return load_lanes(values + j * kLanes); }
};

/// Sums of f(j) over the columns of a group as torch adds them along a last dimension: in eight lanes, and in four of
/// each where there are 32 columns; then lane after lane. f writes kSums values.
template <int kSums, class F>
[[gnu::always_inline]] inline void sum_columns(int64_t size, Lanes (&total)[kSums], F&& f) {
  const int64_t lanes = size < 8 ? size : 8;
  const int64_t vectors = size / lanes;
  for (int s = 0; s < kSums; ++s) total[s] = Lanes{};
  for (int64_t k = 0; k < lanes; ++k) {
    Lanes part[kSums][4] = {};
    int64_t v = 0;
    Lanes term[kSums];
    for (; v + 4 <= vectors; v += 4)
      for (int a = 0; a < 4; ++a) {
        f((v + a) * lanes + k, term);
        for (int s = 0; s < kSums; ++s) part[s][a] = part[s][a] + term[s];
      }
    for (; v < vectors; ++v) {
      f(v * lanes + k, term);
      for (int s = 0; s < kSums; ++s) part[s][0] = part[s][0] + term[s];
    }
    for (int s = 0; s < kSums; ++s) total[s] = total[s] + (((part[s][0] + part[s][1]) + part[s][2]) + part[s][3]);
  }
}

/// What n stands for among the 16 values of a table, or among -31 ... 31.
template <int kBits>
[[gnu::always_inline]] inline Lanes stand_in(const Lanes& n, const float* thresholds, const float* base) {
  if constexpr (kBits == 6) return whole(n, -31.0f, 31.0f);
  return look_up<16>(base, count_below<16>(thresholds, n));
}

template <int kBits>
[[gnu::noinline]] void fit_alternating(const Groups& groups, const float* thresholds, const float* base, Lanes& scale,
                                       Lanes& top) {
  Lanes amax{};
  for (int64_t j = 0; j < groups.size; ++j) amax = larger_of(amax, absolute(groups.at(j)));
  scale = larger_of(kBits == 6 ? amax / all_lanes(31.0f) : amax, kSmallest);
  for (int round = 0; round < kRounds; ++round) {
    Lanes sums[2];
    sum_columns(
        groups.size, sums, [&](int64_t j, Lanes(&term)[2]) __attribute__((always_inline)) {
          const Lanes w = groups.at(j);
          const Lanes level = stand_in<kBits>(w / scale, thresholds, base);
          term[0] = w * level;
          term[1] = level * level;
        });
    scale = larger_of(finite_or(sums[0] / larger_of(sums[1], kSmallest), scale), kSmallest);
  }
  top = Lanes{};
  for (int64_t j = 0; j < groups.size; ++j)
    top = larger_of(top, absolute(stand_in<kBits>(groups.at(j) / scale, thresholds, base) * scale));
}

[[gnu::noinline]] void fit_absmax(const Groups& groups, Lanes& scale, Lanes& top) {
  Lanes amax{};
  for (int64_t j = 0; j < groups.size; ++j) amax = larger_of(amax, absolute(groups.at(j)));
  scale = larger_of(amax / all_lanes(7.0f), kSmallest);
  top = Lanes{};
  for (int64_t j = 0; j < groups.size; ++j)
    top = larger_of(top, absolute(whole(groups.at(j) / scale, -8.0f, 7.0f) * scale));
}

[[gnu::noinline]] void fit_range(const Groups& groups, Lanes& scale, Lanes& top, Lanes& correction) {
  Lanes least = groups.at(0), most = least;
  for (int64_t j = 1; j < groups.size; ++j) {
    least = smaller_of(least, groups.at(j));
    most = larger_of(most, groups.at(j));
  }
  scale = larger_of(finite_or((most - least) / all_lanes(15.0f), most * (2.0f / 15.0f)), kSmallest);
  correction = scale * 8.0f + least;
  top = Lanes{};
  for (int64_t j = 0; j < groups.size; ++j) {
    const Lanes code = whole((groups.at(j) - least) / scale, 0.0f, 15.0f);
    top = larger_of(top, absolute((code - 8.0f) * scale));
  }
}

/// Sum of squares of the group's distances to its nearest levels, added up as above.
template <int kCount>
[[gnu::noinline]] float group_error(const float* t, int64_t n, const float* base, float relative) {
  LevelTable<kCount> table;
  table.set(base, relative);
  alignas(64) float square[kLargestLevelGroup + kLanes];
  for (int64_t i = 0; i < n; i += kLanes) {
    const Lanes value = load_lanes(t + i);
    Lanes level;
    table.nearest(value, level);
    const Lanes e = level - value;
    store_lanes(e * e, square + i);
  }
  const int64_t lanes = n < 8 ? n : 8;
  const int64_t vectors = n / lanes;
  float total = 0;
  for (int64_t k = 0; k < lanes; ++k) {
    float part[4] = {};
    int64_t v = 0;
    for (; v + 4 <= vectors; v += 4)
      for (int a = 0; a < 4; ++a) part[a] += square[(v + a) * lanes + k];
    for (; v < vectors; ++v) part[0] += square[v * lanes + k];
    total += ((part[0] + part[1]) + part[2]) + part[3];
  }
  return total;
}

template <int kCount>
void search(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int reach,
            Byte* relative) {
  constexpr int kMost = 0x7E;
  const float* base = kCount == 64 ? kSixBits.base : how.base;
  alignas(64) float t[kLargestLevelGroup + kLanes];
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = static_cast<const float*>(x.data) + r * x.stride;
    const float channel = scales.channel[row0 + r];
    for (int64_t g = 0; g < how.groups(); ++g) {
      const float correction = scales.correction == nullptr ? 0.0f : scales.correction[g * scales.rows + row0 + r];
      for (int64_t i = 0; i < how.group; i += kLanes)
        store_lanes(on_grid(load_some(row + g * how.group + i, how.group - i), correction, channel), t + i);
      Byte& stored = relative[r * how.groups() + g];
      const int start = stored;
      float least = group_error<kCount>(t, how.group, base, E4m3::decode(stored));
      for (int step = 1; step <= reach; ++step)
        for (int sign = -1; sign <= 1; sign += 2) {
          int code = start + sign * step;
          code = code < 1 ? 1 : code > kMost ? kMost : code;
          const float error = group_error<kCount>(t, how.group, base, E4m3::decode(static_cast<uint32_t>(code)));
          if (!(error < least)) continue;
          least = error;
          stored = static_cast<uint8_t>(code);
        }
    }
  }
}

}  // namespace

template <>
void fit_groups<kIsa>(const Source& x, const LevelCodes& how, GroupFit fit, float* group_scales, float* row_top,
                      float* correction, int64_t correction_stride) {
  alignas(64) float thresholds[kLanes] = {};
  if (how.bits == 4 && fit == GroupFit::alternating)
    for (int i = 0; i < 15; ++i) thresholds[i] = threshold_between(how.base[i], how.base[i + 1]);
  Groups groups;
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = static_cast<const float*>(x.data) + r * x.stride;
    row_top[r] = 0;
    for (int64_t g = 0; g < how.groups(); g += kLanes) {
      const int64_t count = smaller(how.groups() - g, int64_t{kLanes});
      groups.load(row + g * how.group, how.group, count);
      Lanes scale, top, shift{};
      if (fit == GroupFit::absmax) {
        fit_absmax(groups, scale, top);
      } else if (fit == GroupFit::range) {
        fit_range(groups, scale, top, shift);
      } else if (how.bits == 6) {
        fit_alternating<6>(groups, thresholds, how.base, scale, top);
      } else {
        fit_alternating<4>(groups, thresholds, how.base, scale, top);
      }
      alignas(64) float out[3][kLanes];
      store_lanes(scale, out[0]);
      store_lanes(top, out[1]);
      store_lanes(shift, out[2]);
      for (int64_t l = 0; l < count; ++l) {
        group_scales[r * how.groups() + g + l] = out[0][l];
        if (out[1][l] > row_top[r]) row_top[r] = out[1][l];
        if (fit == GroupFit::range) correction[(g + l) * correction_stride + r] = out[2][l];
      }
    }
  }
}

template <>
void relative_scales<kIsa>(const float* group_scales, int64_t rows, int64_t groups, const float* channel,
                           uint8_t* relative) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = group_scales + r * groups;
    Byte* to = relative + r * groups;
    const float divisor = channel[r];
    for (int64_t g = 0; g < groups; ++g) to[g] = static_cast<uint8_t>(E4m3::encode_saturating(from[g] / divisor));
  }
}

template <>
void search_relative<kIsa>(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int reach,
                           uint8_t* relative) {
  if (how.bits == 6) return search<64>(x, how, scales, row0, reach, relative);
  search<16>(x, how, scales, row0, reach, relative);
}

}  // namespace mezzotint::kernel
