// Every format against the independent definition of oracle.h: all codes, all ties and their float32 neighbours, and
// (sampled, or in full with MEZZOTINT_EXHAUSTIVE=1) every float32.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/oracle.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/fp16.h"
#include "support/seed.h"

namespace mezzotint::test {
namespace {

template <class C>
struct Facts;
template <>
struct Facts<Bf16> {
  static constexpr FloatSpec spec{8, 7, true, true};
  static constexpr uint32_t overflow = 0x7F80, nan = 0x7FC0, quiet = 0x40;
};
template <>
struct Facts<Fp16> {
  static constexpr FloatSpec spec{5, 10, true, true};
  static constexpr uint32_t overflow = 0x7C00, nan = 0x7E00, quiet = 0x200;
};
template <>
struct Facts<E4m3> {
  static constexpr FloatSpec spec{4, 3, false, true};
  static constexpr uint32_t overflow = 0x7F, nan = 0x7F, quiet = 0;
};
template <>
struct Facts<E5m2> {
  static constexpr FloatSpec spec{5, 2, true, true};
  static constexpr uint32_t overflow = 0x7C, nan = 0x7F, quiet = 0;
};
template <>
struct Facts<E2m1> {
  static constexpr FloatSpec spec{2, 1, false, false};
  static constexpr uint32_t overflow = 7, nan = 7, quiet = 0;
};

template <class C>
class SmallFloatTest : public testing::Test {};
using Codecs = testing::Types<Bf16, Fp16, E4m3, E5m2, E2m1>;
TYPED_TEST_SUITE(SmallFloatTest, Codecs);

constexpr uint32_t kSign = 0x80000000u;

TYPED_TEST(SmallFloatTest, DecodesEveryCode) {
  const FloatSpec spec = Facts<TypeParam>::spec;
  for (uint32_t code = 0; code < 2 * spec.magnitudes(); ++code) {
    const double expected = spec.value(code);
    const float actual = TypeParam::decode(code);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(actual)) << code;
    } else {
      ASSERT_EQ(static_cast<double>(actual), expected) << code;
    }
    ASSERT_EQ(std::signbit(actual), (code & spec.sign()) != 0) << code;
  }
}

TYPED_TEST(SmallFloatTest, EncodingADecodedCodeGivesItBack) {
  const FloatSpec spec = Facts<TypeParam>::spec;
  for (uint32_t code = 0; code < 2 * spec.magnitudes(); ++code) {
    const float x = TypeParam::decode(code);
    if (std::isnan(x)) continue;
    ASSERT_EQ(TypeParam::encode(x), code);
    if (std::isinf(x)) continue;
    ASSERT_EQ(TypeParam::encode_saturating(x), code);
    for (const uint32_t random : {0u, 1u, 0x80000000u, 0xFFFFFFFFu})
      ASSERT_EQ(TypeParam::encode_stochastic(x, random), code) << random;
  }
}

TYPED_TEST(SmallFloatTest, EncodesTiesAndTheirNeighbours) {
  const FloatSpec spec = Facts<TypeParam>::spec;
  for (const Interval& i : nearest_even_intervals(spec, Facts<TypeParam>::overflow)) {
    for (const uint32_t bits : {i.first, i.first + 1, i.last - 1, i.last}) {
      if (bits < i.first || bits > i.last) continue;
      ASSERT_EQ(TypeParam::encode(float_of(bits)), i.code) << std::hex << bits;
      ASSERT_EQ(TypeParam::encode(float_of(bits | kSign)), i.code | spec.sign()) << std::hex << bits;
      const uint32_t saturated = std::min(i.code, spec.max_code());
      ASSERT_EQ(TypeParam::encode_saturating(float_of(bits)), saturated) << std::hex << bits;
      ASSERT_EQ(TypeParam::encode_saturating(float_of(bits | kSign)), saturated | spec.sign()) << std::hex << bits;
    }
  }
}

TYPED_TEST(SmallFloatTest, EncodesNaN) {
  using F = Facts<TypeParam>;
  for (const uint32_t bits : {0x7FC00000u, 0x7F800001u, 0x7FFFFFFFu, 0x7FA12345u})
    for (const uint32_t sign : {0u, kSign}) {
      // Wide formats keep the upper payload, quieted; narrow ones have one NaN; E2M1 has none and saturates.
      const int drop = 23 - F::spec.mantissa_bits;
      uint32_t expected = F::nan;
      if (F::quiet != 0) expected = F::overflow | F::quiet | ((bits & 0x7FFFFF) >> drop);
      if (sign != 0) expected |= F::spec.sign();
      const float x = float_of(bits | sign);
      EXPECT_EQ(TypeParam::encode(x), expected) << std::hex << bits;
      EXPECT_EQ(TypeParam::encode_saturating(x), expected) << std::hex << bits;
      EXPECT_EQ(TypeParam::encode_stochastic(x, 0x12345678), expected) << std::hex << bits;
    }
}

/// Float32 bit patterns `first`, first + stride, ... that are encoded to another code than their interval's.
template <class Encode>
uint64_t mismatches(const std::vector<Interval>& intervals, uint32_t limit, uint32_t sign_code, uint32_t stride,
                    Encode encode) {
  uint64_t wrong = 0;
  uint64_t next = 0;
  for (const Interval& i : intervals) {
    const uint32_t code = std::min(i.code, limit);
    for (; next <= i.last; next += stride) {
      const auto bits = static_cast<uint32_t>(next);
      wrong += encode(float_of(bits)) != code;
      wrong += encode(float_of(bits | kSign)) != (code | sign_code);
    }
  }
  return wrong;
}

TYPED_TEST(SmallFloatTest, EncodesAllFloats) {
  using F = Facts<TypeParam>;
  const char* all = std::getenv("MEZZOTINT_EXHAUSTIVE");
  const uint32_t stride = all != nullptr && *all == '1' ? 1 : 31;  // prime: every exponent and low bit pattern occurs
  const auto intervals = nearest_even_intervals(F::spec, F::overflow);
  const auto nearest = [](float x) { return TypeParam::encode(x); };
  const auto saturating = [](float x) { return TypeParam::encode_saturating(x); };
  EXPECT_EQ(mismatches(intervals, ~0u, F::spec.sign(), stride, nearest), 0u);
  EXPECT_EQ(mismatches(intervals, F::spec.max_code(), F::spec.sign(), stride, saturating), 0u);
  // Negative control: an input that is one ulp off must be noticed at the sampled ties.
  const auto one_ulp_off = [](float x) { return TypeParam::encode(float_of(bits_of(x) ^ 1)); };
  EXPECT_GT(mismatches(intervals, ~0u, F::spec.sign(), 1 << (F::spec.mantissa_bits < 8 ? 12 : 8), one_ulp_off), 0u);
}

TEST(SmallFloatBounds, AreThoseOfTheSpecifications) {
  EXPECT_EQ(E4m3::kMax, 448.0f);
  EXPECT_EQ(E5m2::kMax, 57344.0f);
  EXPECT_EQ(E2m1::kMax, 6.0f);
  EXPECT_EQ(Fp16::kMax, 65504.0f);
  EXPECT_EQ(Bf16::kMax, 0x1.FEp127f);
  EXPECT_EQ(E4m3::encode(464.0f), 0x7Eu);
  EXPECT_EQ(E4m3::encode(std::nextafterf(464.0f, 1e9f)), 0x7Fu);
  EXPECT_EQ(E5m2::encode(61440.0f), 0x7Cu);
  EXPECT_EQ(E4m3::encode(-0.0f), 0x80u);
  EXPECT_EQ(E4m3::encode(-0x1p-10f), 0x80u);
}

TEST(SmallFloatConstexpr, EvaluatesAtCompileTime) {
  static_assert(E4m3::encode(448.0f) == 0x7E && E5m2::encode_saturating(1e9f) == 0x7B);
  static_assert(E2m1::decode(0xF) == -6.0f && Bf16::encode(1.0f) == 0x3F80 && Fp16::decode(1) == 0x1p-24f);
  static_assert(E4m3::encode_stochastic(0x1p-10f, 0x80000000u) == 1);
}

}  // namespace
}  // namespace mezzotint::test
