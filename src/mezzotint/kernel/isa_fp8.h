#pragma once
// bf16 to 8-bit floats in vectors, for *.isa.cpp files: what a plain loop over SmallFloat::encode_saturating computes,
// in half the operations. Empty at levels without AVX2.
#include "mezzotint/base/small_float.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

#if defined(__AVX2__)
#define MEZZOTINT_FP8_VECTORS 1
#if defined(__AVX512BW__)
constexpr int kFp8VectorBytes = 64;
#else
constexpr int kFp8VectorBytes = 32;
#endif
constexpr int64_t kFp8Step = kFp8VectorBytes / 2;  ///< elements at a time

typedef uint32_t U32s __attribute__((vector_size(kFp8VectorBytes)));
typedef int32_t I32s __attribute__((vector_size(kFp8VectorBytes)));
typedef float F32s __attribute__((vector_size(kFp8VectorBytes)));
typedef uint16_t U16s __attribute__((vector_size(kFp8VectorBytes / 2)));
typedef U32s U32sAnywhere __attribute__((aligned(1), may_alias));
typedef U16s U16sAnywhere __attribute__((aligned(1), may_alias));

/// Codes of magnitudes in the low byte of each lane, without the sign; bits above mean nothing.
///
/// With the exponent e of y, at least that of the smallest normal value, 2^(e + 23 - M) has the step of y's code as its
/// last bit: the sum rounds y to n such steps, nearest-even, and leaves n in its low bits. The code is
/// n + ((e - kMinExponent) << M), also where y is subnormal or n carries into the next exponent. The constant part of
/// it rides in the low bits of the addend.
template <class To>
[[gnu::always_inline]] inline U32s magnitude_codes(F32s y) {
  constexpr int32_t kAddend = (To::kShift << 23) + (-(To::kMinNormalBits >> To::kShift) & 0xFF);
  static_assert(kAddend % 2 == 0, "or ties would round to odd codes");
  const I32s all = (I32s)y & kFloatMagnitude;
  const I32s a = all > To::kMaxBits ? I32s{} + To::kMaxBits : all;
  const I32s exponent = (a > To::kMinNormalBits ? a : I32s{} + To::kMinNormalBits) & kFloatInfBits;
  const I32s sum = (I32s)((F32s)a + (F32s)(exponent + kAddend));
  const I32s code = sum + (exponent >> To::kShift);
  return (U32s)(all > kFloatInfBits ? I32s{} + To::kAllOnes : code);
}

/// Codes of kFp8Step bf16 values times a multiplier.
template <class To>
[[gnu::always_inline]] inline void encode_step(const Word* x, float multiplier, Byte* q) {
  // Two values to a lane: the lower one is shifted up, the upper one already is a float32.
  const U32s pair = *reinterpret_cast<const U32sAnywhere*>(x);
  const F32s even = (F32s)(pair << 16) * multiplier, odd = (F32s)(pair & 0xFFFF0000u) * multiplier;
  const U32s codes = (magnitude_codes<To>(even) & 0xFFu) | (magnitude_codes<To>(odd) << 8 & 0xFF00u);
  const U32s signs = ((U32s)even >> 24 & 0x80u) | ((U32s)odd >> 16 & 0x8000u);
  *reinterpret_cast<U16sAnywhere*>(q) = __builtin_convertvector(codes | signs, U16s);
}
#endif

}  // namespace
}  // namespace mezzotint::kernel
