// Stochastic rounding of single values: the exact expectation over all 2^32 random words, not an estimate.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/oracle.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/base/integer.h"
#include "support/seed.h"

namespace mezzotint::test {
namespace {

using Round = std::function<double(float x, uint32_t random)>;

/// E[round(x, R)] for R uniform over 32 bits. The result is monotone in R and takes at most two values, so the number
/// of words that give the higher one is found by bisection; both facts are checked on the way.
double expectation(const Round& round, float x, std::mt19937_64& rng) {
  const double low = round(x, 0), high = round(x, 0xFFFFFFFFu);
  uint64_t first = 0, last = 0x100000000;  // first word that gives `high` lies in (first, last]
  if (low == high) return low;
  while (last - first > 1) {
    const uint64_t middle = (first + last) / 2;
    (round(x, static_cast<uint32_t>(middle)) == low ? first : last) = middle;
  }
  for (int i = 0; i < 64; ++i) {
    const auto random = static_cast<uint32_t>(rng());
    EXPECT_EQ(round(x, random), random < last ? low : high) << x << " " << random;
  }
  const double p = static_cast<double>(0x100000000 - last) / 4294967296.0;
  return low + p * (high - low);
}

/// Largest violation of |E - x| <= bound(x), as E - x; 0 if there is none.
double worst_violation(const Round& round, const std::function<double(double)>& bound, const std::vector<float>& inputs,
                       std::mt19937_64& rng) {
  double worst = 0;
  for (const float x : inputs) {
    const double error = std::abs(expectation(round, x, rng) - static_cast<double>(x));
    if (error > bound(x) && error > worst) worst = error;
  }
  return worst;
}

/// Values between all pairs of neighbouring codes, and random magnitudes over the whole range.
std::vector<float> inputs_for(const FloatSpec& spec, std::mt19937_64& rng) {
  std::vector<float> inputs;
  const uint32_t step = std::max<uint32_t>(1, spec.max_code() / 500);
  for (uint32_t code = 0; code < spec.max_code(); code += step)
    for (int i = 0; i < 8; ++i) {
      const double u = std::uniform_real_distribution<double>(0, 1)(rng);
      const auto x = static_cast<float>(spec.raw(code) + u * (spec.raw(code + 1) - spec.raw(code)));
      inputs.push_back(rng() % 2 ? x : -x);
    }
  const double smallest = spec.raw(1);
  for (const double scale : {1.0, 0.5, 1e-3, 1e-8}) inputs.push_back(static_cast<float>(smallest * scale));
  return inputs;
}

template <class C>
void check_unbiased(const FloatSpec& spec, int fixed_bits) {
  auto rng = test_rng();
  const double smallest = spec.raw(1), normal = spec.raw(1u << spec.mantissa_bits);
  const auto inputs = inputs_for(spec, rng);
  // Exact for normal results; below, |x| / smallest is cut to `fixed_bits` fraction bits.
  const auto bound = [&](double x) { return std::abs(x) >= normal ? 0.0 : std::ldexp(smallest, -fixed_bits); };
  const Round stochastic = [](float x, uint32_t random) {
    return static_cast<double>(C::decode(C::encode_stochastic(x, random)));
  };
  EXPECT_EQ(worst_violation(stochastic, bound, inputs, rng), 0.0);
  // Negative controls: nearest rounding, and random words that lost their top bit.
  const Round nearest = [](float x, uint32_t) { return static_cast<double>(C::decode(C::encode_saturating(x))); };
  const Round weak = [](float x, uint32_t random) {
    return static_cast<double>(C::decode(C::encode_stochastic(x, random >> 1)));
  };
  EXPECT_GT(worst_violation(nearest, bound, inputs, rng), 0.0);
  EXPECT_GT(worst_violation(weak, bound, inputs, rng), 0.0);
}

TEST(Stochastic, Bf16IsUnbiased) {
  check_unbiased<Bf16>({8, 7, true, true}, 40);
}
TEST(Stochastic, Fp16IsUnbiased) {
  check_unbiased<Fp16>({5, 10, true, true}, 21);
}
TEST(Stochastic, E4m3IsUnbiased) {
  check_unbiased<E4m3>({4, 3, false, true}, 28);
}
TEST(Stochastic, E5m2IsUnbiased) {
  check_unbiased<E5m2>({5, 2, true, true}, 29);
}
TEST(Stochastic, E2m1IsUnbiased) {
  check_unbiased<E2m1>({2, 1, false, false}, 30);
}

TEST(Stochastic, NeverPassesTheLargestCode) {
  auto rng = test_rng();
  for (int i = 0; i < 100000; ++i) {
    const auto random = static_cast<uint32_t>(rng());
    for (const float x : {448.0f, 447.9f, 449.0f, 1e30f, INFINITY})
      ASSERT_LE(E4m3::encode_stochastic(x, random), 0x7Eu);
    for (const float x : {57344.0f, 1e30f, INFINITY}) ASSERT_EQ(E5m2::encode_stochastic(x, random), 0x7Bu);
    for (const float x : {6.0f, 100.0f, INFINITY}) ASSERT_EQ(E2m1::encode_stochastic(-x, random), 0xFu);
    for (const float x : {65504.0f, 65519.0f, INFINITY}) ASSERT_EQ(Fp16::encode_stochastic(x, random), 0x7BFFu);
    for (const float x : {0x1.FEp127f, 0x1.FFFFFEp127f, INFINITY})
      ASSERT_EQ(Bf16::encode_stochastic(-x, random), 0xFF7Fu);
    for (const float x : {127.0f, 127.4f, 1e30f, INFINITY})
      ASSERT_EQ(Int8::encode_stochastic(x, -128, 127, random), 127);
    for (const float x : {-128.0f, -1e30f, -INFINITY}) ASSERT_EQ(Int8::encode_stochastic(x, -128, 127, random), -128);
    ASSERT_EQ(Int8::encode_stochastic(-127.5f, -127, 127, random), -127);
  }
}

TEST(Stochastic, KeepsTheSignOfZeroes) {
  for (const uint32_t random : {0u, 0xFFFFFFFFu}) {
    EXPECT_EQ(E4m3::encode_stochastic(-0.0f, random), 0x80u);
    EXPECT_EQ(Fp16::encode_stochastic(-0.0f, random), 0x8000u);
    EXPECT_EQ(Bf16::encode_stochastic(-0.0f, random), 0x8000u);
    EXPECT_EQ(E5m2::encode_stochastic(0.0f, random), 0u);
  }
}

TEST(Stochastic, IntegersAreUnbiased) {
  auto rng = test_rng();
  std::vector<float> inputs;
  for (int i = -128; i < 127; ++i)
    for (int k = 0; k < 8; ++k)
      inputs.push_back(static_cast<float>(i + std::uniform_real_distribution<double>(0, 1)(rng)));
  inputs.insert(inputs.end(), {1e-6f, -1e-6f, 0.5f, -0.5f, 126.99999f});
  const auto bound = [](double) { return 0x1p-24; };
  const Round stochastic = [](float x, uint32_t random) {
    return static_cast<double>(Int8::encode_stochastic(x, -128, 127, random));
  };
  const Round nearest = [](float x, uint32_t) { return static_cast<double>(Int8::encode(x, -128, 127)); };
  EXPECT_EQ(worst_violation(stochastic, bound, inputs, rng), 0.0);
  EXPECT_GT(worst_violation(nearest, bound, inputs, rng), 0.0);
}

TEST(Stochastic, PowersOfTwoAreUnbiased) {
  auto rng = test_rng();
  std::vector<float> inputs;
  for (int exponent = -127; exponent < 127; ++exponent)
    for (int k = 0; k < 8; ++k)
      inputs.push_back(static_cast<float>(std::ldexp(std::uniform_real_distribution<double>(1, 2)(rng), exponent)));
  const auto bound = [](double) { return 0.0; };
  const Round stochastic = [](float x, uint32_t random) {
    return static_cast<double>(E8m0::decode(E8m0::encode_stochastic(x, random)));
  };
  const Round nearest = [](float x, uint32_t) { return static_cast<double>(E8m0::decode(E8m0::encode(x))); };
  EXPECT_EQ(worst_violation(stochastic, bound, inputs, rng), 0.0);
  EXPECT_GT(worst_violation(nearest, bound, inputs, rng), 0.0);
}

}  // namespace
}  // namespace mezzotint::test
