#pragma once
// Sixteen lanes beyond isa_lanes.h: division, indices and tables. For *.isa.cpp files, see isa_elements.h.
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_lanes.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mezzotint::kernel {
namespace {

typedef int32_t IndexRegister __attribute__((vector_size(kRegisterFloats * 4), aligned(4), may_alias));

/// Sixteen int32.
struct Indices {
  IndexRegister part[kRegisters];
};

[[gnu::always_inline]] inline Lanes all_lanes(float x) {
  Lanes out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = Register{} + x;
  return out;
}
[[gnu::always_inline]] inline void store_lanes(const Lanes& a, float* x) {
  for (int i = 0; i < kRegisters; ++i) *reinterpret_cast<Register*>(x + i * kRegisterFloats) = a.part[i];
}
[[gnu::always_inline]] inline Lanes operator/(const Lanes& a, const Lanes& b) {
  return each(
      a, b, [](const Register& x, const Register& y) __attribute__((always_inline)) { return x / y; });
}
[[gnu::always_inline]] inline Lanes larger_of(const Lanes& a, const Lanes& b) {
  return each(
      a, b, [](const Register& x, const Register& y) __attribute__((always_inline)) { return x > y ? x : y; });
}
[[gnu::always_inline]] inline Lanes smaller_of(const Lanes& a, const Lanes& b) {
  return each(
      a, b, [](const Register& x, const Register& y) __attribute__((always_inline)) { return x < y ? x : y; });
}
[[gnu::always_inline]] inline Lanes absolute(const Lanes& a) {
  Lanes out;
  for (int i = 0; i < kRegisters; ++i)
    out.part[i] = reinterpret_cast<Register>(reinterpret_cast<IndexRegister>(a.part[i]) & kFloatMagnitude);
  return out;
}
/// The nearest whole number within [lowest, highest]; NaN becomes lowest.
[[gnu::always_inline]] inline Lanes whole(const Lanes& a, float lowest, float highest) {
  return round_to_even(smaller_of(larger_of(a, lowest), highest));
}
/// Finite lanes; inf and NaN become 0.
[[gnu::always_inline]] inline Lanes finite_lanes(const Lanes& a) {
  return each(
      a, [](const Register& x) __attribute__((always_inline)) { return x - x == 0.0f ? x : Register{}; });
}
/// Where the candidate is finite it is taken, elsewhere the other.
[[gnu::always_inline]] inline Lanes finite_or(const Lanes& candidate, const Lanes& other) {
  return each(
      candidate, other,
      [](const Register& x, const Register& y) __attribute__((always_inline)) { return x - x == 0.0f ? x : y; });
}

/// table[index] for a table of 16 or 64 floats.
template <int kCount>
[[gnu::always_inline]] inline Lanes look_up(const float* table, const Indices& index) {
  Lanes out;
#if defined(__AVX512F__)
  const auto at = reinterpret_cast<__m512i>(index.part[0]);
  if constexpr (kCount == 16) {
    out.part[0] = reinterpret_cast<Register>(_mm512_permutexvar_ps(at, _mm512_loadu_ps(table)));
  } else {
    const __m512 low = _mm512_permutex2var_ps(_mm512_loadu_ps(table), at, _mm512_loadu_ps(table + 16));
    const __m512 high = _mm512_permutex2var_ps(_mm512_loadu_ps(table + 32), at, _mm512_loadu_ps(table + 48));
    const __mmask16 upper = _mm512_test_epi32_mask(at, _mm512_set1_epi32(32));
    out.part[0] = reinterpret_cast<Register>(_mm512_mask_blend_ps(upper, low, high));
  }
#elif defined(__AVX2__)
  for (int i = 0; i < kRegisters; ++i) {
    const auto at = reinterpret_cast<__m256i>(index.part[i]);
    if constexpr (kCount == 16) {
      const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), at);
      const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), at);
      const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(at, 28));  // bit 3 becomes the sign
      out.part[i] = reinterpret_cast<Register>(_mm256_blendv_ps(low, high, upper));
    } else {
      out.part[i] = reinterpret_cast<Register>(_mm256_i32gather_ps(table, at, 4));
    }
  }
#else
  for (int i = 0; i < kRegisters; ++i)
    for (int k = 0; k < kRegisterFloats; ++k) out.part[i][k] = table[index.part[i][k]];
#endif
  return out;
}

/// index + (x > bound ? step : 0)
[[gnu::always_inline]] inline Indices step_above(const Indices& index, const Lanes& x, const Lanes& bound, int step) {
  Indices out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = index.part[i] + ((x.part[i] > bound.part[i]) & step);
  return out;
}
[[gnu::always_inline]] inline Indices plus(const Indices& index, int n) {
  Indices out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = index.part[i] + n;
  return out;
}
/// How many of the kCount - 1 ascending thresholds lie below x; kCount = 16 or 64. thresholds[kCount - 1] is never
/// used.
template <int kCount>
[[gnu::always_inline]] inline Indices count_below(const float* thresholds, const Lanes& x) {
  Indices index{};
  index = step_above(index, x, all_lanes(thresholds[kCount / 2 - 1]), kCount / 2);
  for (int step = kCount / 4; step > 0; step /= 2)
    index = step_above(index, x, look_up<kCount>(thresholds, plus(index, step - 1)), step);
  return index;
}

[[gnu::always_inline]] inline Lanes to_lanes(const Indices& index) {
  Lanes out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = __builtin_convertvector(index.part[i], Register);
  return out;
}
[[gnu::always_inline]] inline Indices load_indices(const Byte* bytes) {
  alignas(64) int32_t wide[kLanes];
  for (int i = 0; i < kLanes; ++i) wide[i] = bytes[i];
  Indices out;
  for (int i = 0; i < kRegisters; ++i)
    out.part[i] = *reinterpret_cast<const IndexRegister*>(wide + i * kRegisterFloats);
  return out;
}
[[gnu::always_inline]] inline void store_indices(const Indices& index, Byte* bytes) {
  alignas(64) int32_t wide[kLanes];
  for (int i = 0; i < kRegisters; ++i) *reinterpret_cast<IndexRegister*>(wide + i * kRegisterFloats) = index.part[i];
  for (int i = 0; i < kLanes; ++i) bytes[i] = static_cast<uint8_t>(wide[i]);
}

}  // namespace
}  // namespace mezzotint::kernel
