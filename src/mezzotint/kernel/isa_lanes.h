#pragma once
// Sixteen float32 lanes that are the same sixteen at every level: one, two or four registers. For sums whose order must
// not depend on the level. For *.isa.cpp files: everything has internal linkage and is always inlined.
#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::kernel {
namespace {

constexpr int kLanes = 16;
#if defined(__AVX512F__)
constexpr int kRegisterFloats = 16;
#elif defined(__AVX2__)
constexpr int kRegisterFloats = 8;
#else
constexpr int kRegisterFloats = 4;
#endif
typedef float Register __attribute__((vector_size(kRegisterFloats * 4), aligned(4), may_alias));
constexpr int kRegisters = kLanes / kRegisterFloats;

struct Lanes {
  Register part[kRegisters];
};

/// f applied to every register of a, or of a and b.
template <class F>
[[gnu::always_inline]] inline Lanes each(const Lanes& a, F&& f) {
  Lanes out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = f(a.part[i]);
  return out;
}
template <class F>
[[gnu::always_inline]] inline Lanes each(const Lanes& a, const Lanes& b, F&& f) {
  Lanes out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = f(a.part[i], b.part[i]);
  return out;
}

[[gnu::always_inline]] inline Lanes load_lanes(const float* x) {
  Lanes out;
  for (int i = 0; i < kRegisters; ++i) out.part[i] = *reinterpret_cast<const Register*>(x + i * kRegisterFloats);
  return out;
}
[[gnu::always_inline]] inline void store_lanes(float* x, const Lanes& a) {
  for (int i = 0; i < kRegisters; ++i) *reinterpret_cast<Register*>(x + i * kRegisterFloats) = a.part[i];
}
[[gnu::always_inline]] inline Lanes operator+(const Lanes& a, const Lanes& b) {
  return each(
      a, b, [](const Register& x, const Register& y) __attribute__((always_inline)) { return x + y; });
}
[[gnu::always_inline]] inline Lanes operator-(const Lanes& a, const Lanes& b) {
  return each(
      a, b, [](const Register& x, const Register& y) __attribute__((always_inline)) { return x - y; });
}
[[gnu::always_inline]] inline Lanes operator*(const Lanes& a, const Lanes& b) {
  return each(
      a, b, [](const Register& x, const Register& y) __attribute__((always_inline)) { return x * y; });
}
[[gnu::always_inline]] inline Lanes operator*(const Lanes& a, float b) {
  return each(
      a, [=](const Register& x) __attribute__((always_inline)) { return x * b; });
}
[[gnu::always_inline]] inline Lanes operator-(const Lanes& a, float b) {
  return each(
      a, [=](const Register& x) __attribute__((always_inline)) { return x - b; });
}
/// The smaller (larger) of a lane and a number; NaN becomes the number.
[[gnu::always_inline]] inline Lanes smaller_of(const Lanes& a, float b) {
  const Register limit = Register{} + b;
  return each(
      a, [=](const Register& x) __attribute__((always_inline)) { return x < limit ? x : limit; });
}
[[gnu::always_inline]] inline Lanes larger_of(const Lanes& a, float b) {
  const Register limit = Register{} + b;
  return each(
      a, [=](const Register& x) __attribute__((always_inline)) { return x > limit ? x : limit; });
}
/// To the nearest integer, ties to even, for magnitudes up to 2^22.
[[gnu::always_inline]] inline Lanes round_to_even(const Lanes& a) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the sum has no bits for fractions
  return each(
      a, [](const Register& x) __attribute__((always_inline)) { return x + kMagic - kMagic; });
}
/// The sum of all lanes, halves onto halves.
[[gnu::always_inline]] inline float add_lanes(const Lanes& a) {
  typedef float Quarter __attribute__((vector_size(16), aligned(4), may_alias));
  alignas(64) float x[kLanes];
  for (int i = 0; i < kRegisters; ++i) *reinterpret_cast<Register*>(x + i * kRegisterFloats) = a.part[i];
  const auto quarter = [&](int i) { return *reinterpret_cast<const Quarter*>(x + 4 * i); };
  const Quarter sum = (quarter(0) + quarter(2)) + (quarter(1) + quarter(3));
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

}  // namespace
}  // namespace mezzotint::kernel
