#include "mezzotint/kernel/feedback.h"

#include "mezzotint/kernel/isa_lanes.h"

namespace mezzotint::kernel {
namespace {

typedef int32_t Integers __attribute__((vector_size(kRegisterFloats * 4)));
typedef float Floats __attribute__((vector_size(kRegisterFloats * 4)));

// Groups of rows whose sums stay in registers.
constexpr int kGroups = kRegisters < 4 ? 4 : 2;

struct Rounder {
  int32_t min_exponent, magic_exponent;
  float lowest, largest;

  explicit Rounder(const Grid& grid)
      : min_exponent((grid.min_exponent + 127) << 23),
        magic_exponent((23 - grid.mantissa_bits) << 23),
        lowest(grid.lowest),
        largest(grid.largest) {}

  // t + m has no bits below the grid's step if m = 1.5 * 2^23 steps.
  [[gnu::always_inline]] Register operator()(const Register& t) const {
    const Register top = Register{} + largest, bottom = Register{} + lowest;
    Register x = t < top ? t : top;
    x = x > bottom ? x : bottom;
    Integers exponent = reinterpret_cast<Integers>(x) & 0x7f800000;
    exponent = exponent > min_exponent ? exponent : Integers{} + min_exponent;
    const Integers magic = (exponent + magic_exponent) | 0x400000;
    const auto m = reinterpret_cast<Floats>(magic);
    return (x + m) - m;
  }
};

template <bool kFeedback, int kCount>
[[gnu::always_inline]] inline void round_rows(const FeedbackBlock& b, int64_t row) {
  const Rounder round(b.grid);
  for (int64_t p = b.columns - 1; p >= 0; --p) {
    Lanes sum[kCount];
    for (int g = 0; g < kCount; ++g) sum[g] = load_lanes(b.carried + p * b.stride + row + g * kLanes);
    const float* coupling = b.coupling + p * kFeedbackColumns;
    for (int64_t q = b.columns - 1; q > p; --q) {
      const float* change = b.change + q * b.stride + row;
      for (int g = 0; g < kCount; ++g) sum[g] = sum[g] + load_lanes(change + g * kLanes) * coupling[q];
    }
    const float inverse = b.inverse_pivot[p];
    const float* scale = b.scale[p] + row;
    const float* inverse_scale = b.inverse_scale[p] + row;
    for (int g = 0; g < kCount; ++g) {
      const Lanes base = load_lanes(b.base + p * b.base_stride + row + g * kLanes);
      const Lanes v = base - sum[g] * inverse;
      const Lanes t = (kFeedback ? v : base) * load_lanes(inverse_scale + g * kLanes);
      const Lanes q = each(
                          t, [&](const Register& x) __attribute__((always_inline)) { return round(x); }) *
                      load_lanes(scale + g * kLanes);
      store_lanes(b.change + p * b.stride + row + g * kLanes, q - base);
      const Lanes rest = q - v, before = base - v;
      Lanes energy = rest * rest;
      if (b.energy_of_change) energy = energy - before * before;
      float* sums = b.energy + row + g * kLanes;
      store_lanes(sums, load_lanes(sums) + energy * b.pivot_energy[p]);
    }
  }
}

template <bool kFeedback>
void round_block(const FeedbackBlock& b) {
  int64_t row = 0;
  for (; row + kGroups * kLanes <= b.rows; row += kGroups * kLanes) round_rows<kFeedback, kGroups>(b, row);
  for (; row < b.rows; row += kLanes) round_rows<kFeedback, 1>(b, row);
}

}  // namespace

template <>
void round_with_feedback<kIsa>(const FeedbackBlock& block) {
  return block.feedback ? round_block<true>(block) : round_block<false>(block);
}

}  // namespace mezzotint::kernel
