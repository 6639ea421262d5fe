#pragma once
// The levels of a group and the nearest of them, for the *.isa.cpp files of codebook.h.
#include "mezzotint/base/e4m3.h"
#include "mezzotint/kernel/codebook.h"
#include "mezzotint/kernel/isa_lut.h"

namespace mezzotint::kernel {
namespace {

constexpr float kGridTop = 127.0f;
constexpr float kInfinity = __builtin_inff();

/// What the 63 codes of 6 bits stand for, from code 1 on, and one more that is never reached.
struct SixBits {
  alignas(64) float base[64];
  constexpr SixBits() : base() {
    for (int i = 0; i < 64; ++i) base[i] = static_cast<float>(i - 31);
  }
};
constexpr SixBits kSixBits;

[[gnu::always_inline]] inline float relative_at(const LevelScales& scales, int64_t index) {
  if (scales.relative_dtype == DType::f32) return static_cast<const float*>(scales.relative)[index];
  return E4m3::decode(static_cast<const Byte*>(scales.relative)[index]);
}

/// The levels of a group, and between each two of them the value above which the upper is nearer. kCount: 16, or 64 of
/// which the last is not used.
template <int kCount>
struct LevelTable {
  alignas(64) float level[kCount + kLanes];
  alignas(64) float threshold[kCount];

  [[gnu::always_inline]] void set(const float* base, float relative) {
    for (int i = 0; i < kCount; i += kLanes)
      store_lanes(whole(load_lanes(base + i) * relative, -kGridTop, kGridTop), level + i);
    store_lanes(all_lanes(kInfinity), level + kCount);
    for (int i = 0; i < kCount; i += kLanes)
      store_lanes((load_lanes(level + i) + load_lanes(level + i + 1)) * 0.5f, threshold + i);
    if (kCount == 64) threshold[62] = kInfinity;
  }

  /// The nearest level, the lower of two that differ from t by the same float32.
  [[gnu::always_inline]] Indices nearest(const Lanes& t, Lanes& found) const {
    Indices index = count_below<kCount>(threshold, t);
    Indices below;
    for (int i = 0; i < kRegisters; ++i) below.part[i] = index.part[i] + (index.part[i] > 0);
    found = look_up<kCount>(level, index);
    const Lanes lower = look_up<kCount>(level, below);
    const Lanes up = absolute(t - found), down = absolute(t - lower);
    // Around 0 the differences are rounded: what is nearer may still differ by the same number.
    for (int i = 0; i < kRegisters; ++i) {
      const IndexRegister tie = (lower.part[i] < found.part[i]) & (up.part[i] >= down.part[i]);
      index.part[i] += tie;
      found.part[i] = tie ? lower.part[i] : found.part[i];
    }
    return index;
  }

  /// The level below t, or the one above it where t lies above the part `u` of the way to it.
  [[gnu::always_inline]] Indices stochastic(const Lanes& t, const Lanes& u) const {
    constexpr int kLast = kCount == 64 ? 61 : 14;
    Indices low = count_below<kCount>(level, t);
    for (int i = 0; i < kRegisters; ++i) {
      low.part[i] += low.part[i] > 0;
      low.part[i] = low.part[i] > kLast ? IndexRegister{} + kLast : low.part[i];
    }
    const Lanes lower = look_up<kCount>(level, low), upper = look_up<kCount>(level, plus(low, 1));
    return step_above(low, t, lower + u * (upper - lower), 1);
  }
};

/// (x - correction) / channel within what levels can tell apart; NaN becomes 0.
[[gnu::always_inline]] inline Lanes on_grid(const Lanes& x, float correction, float channel) {
  constexpr float kFar = 512.0f;
  const Lanes t = (x - correction) / all_lanes(channel);
  const Lanes number = each(
      t, [](const Register& v) __attribute__((always_inline)) { return v == v ? v : Register{}; });
  return smaller_of(larger_of(number, -kFar), kFar);
}

/// Up to 16 values; zeros behind them.
[[gnu::always_inline]] inline Lanes load_some(const float* x, int64_t n) {
  if (n >= kLanes) return load_lanes(x);
  alignas(64) float some[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) some[i] = x[i];
  return load_lanes(some);
}

}  // namespace
}  // namespace mezzotint::kernel
