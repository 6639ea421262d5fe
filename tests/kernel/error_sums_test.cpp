#include "mezzotint/kernel/error_sums.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "support/seed.h"

namespace mezzotint::kernel {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Values {
  std::vector<float> a, b;
};

Values random_values(size_t n) {
  auto rng = test::test_rng();
  std::normal_distribution<float> normal;
  Values values;
  for (size_t i = 0; i < n; ++i) {
    values.a.push_back(std::ldexp(normal(rng), static_cast<int>(rng() % 40) - 20));
    values.b.push_back(rng() % 5 == 0 ? 0.0f : values.a.back() * (1 + 0.01f * normal(rng)));
  }
  return values;
}

ErrorSums sums_of(const Values& values) {
  ErrorSums sums;
  add_errors(values.a.data(), values.b.data(), static_cast<int64_t>(values.a.size()), sums);
  return sums;
}

int bin_of(float value) {
  const float size = std::abs(value);
  if (size < std::ldexp(1.0f, kFirstExponent)) return 0;
  if (size >= std::ldexp(1.0f, kFirstExponent + kOctaves)) return kMagnitudeBins - 1;
  int exponent = 0;
  const float fraction = 2 * std::frexp(size, &exponent);  // in [1, 2), of 2^(exponent - 1)
  return 1 + 2 * (exponent - 1 - kFirstExponent) + (fraction >= 1.5f ? 1 : 0);
}

// The definition, one element after the other.
ErrorSums naive(const Values& values) {
  ErrorSums sums;
  for (size_t i = 0; i < values.a.size(); ++i) {
    const double a = values.a[i], b = values.b[i], e = b - a;
    if (!std::isfinite(a) || !std::isfinite(b)) {
      ++sums.non_finite;
      continue;
    }
    sums.a2 += a * a;
    sums.b2 += b * b;
    sums.ab += a * b;
    sums.e2 += e * e;
    sums.max_error = std::max(sums.max_error, static_cast<double>(static_cast<float>(std::abs(e))));
    sums.max_a = std::max(sums.max_a, std::abs(a));
    sums.zeroed += a != 0 && b == 0 ? 1 : 0;
    ++sums.values[bin_of(values.a[i])];
    ++sums.errors[bin_of(static_cast<float>(e))];
  }
  return sums;
}

void expect_same(const ErrorSums& sums, const ErrorSums& expected, double n) {
  // n additions in another order, each within half a unit of 2^-52 of a sum of terms of one sign (ab: of nearly one).
  const double bound = 2 * n * std::numeric_limits<double>::epsilon();
  EXPECT_NEAR(sums.a2, expected.a2, bound * expected.a2);
  EXPECT_NEAR(sums.b2, expected.b2, bound * expected.b2);
  EXPECT_NEAR(sums.ab, expected.ab, bound * (expected.a2 + expected.b2));
  EXPECT_NEAR(sums.e2, expected.e2, bound * expected.e2);
  EXPECT_EQ(sums.max_error, expected.max_error);
  EXPECT_EQ(sums.max_a, expected.max_a);
  EXPECT_EQ(sums.non_finite, expected.non_finite);
  EXPECT_EQ(sums.zeroed, expected.zeroed);
  EXPECT_EQ(std::memcmp(sums.values, expected.values, sizeof sums.values), 0);
  EXPECT_EQ(std::memcmp(sums.errors, expected.errors, sizeof sums.errors), 0);
}

TEST(ErrorSums, AreThoseOfAPlainLoop) {
  for (const size_t n : {0, 1, 7, 8, 9, 255, 256, 257, 1000, 4099}) {
    SCOPED_TRACE(n);
    const Values values = random_values(n);
    expect_same(sums_of(values), naive(values), static_cast<double>(n) + 1);
  }
}

TEST(ErrorSums, CountsBeyondAChunk) {
  const Values values = random_values((1 << 20) + 3);
  expect_same(sums_of(values), naive(values), 1 << 20);
}

TEST(ErrorSums, EdgesOfBinsAndSpecials) {
  Values values;
  for (const float a : {0.0f, -0.0f, 1e-45f, std::ldexp(1.0f, kFirstExponent), 1.5f, std::nextafter(1.5f, 0.0f), -2.0f,
                        std::ldexp(1.0f, kFirstExponent + kOctaves), std::numeric_limits<float>::max()})
    for (const float b : {0.0f, 1.0f, a}) {
      values.a.push_back(a);
      values.b.push_back(b);
    }
  for (const float bad : {kInf, -kInf, kNan}) {
    values.a.insert(values.a.end(), {bad, 1.0f, bad});
    values.b.insert(values.b.end(), {1.0f, bad, bad});
  }
  const ErrorSums sums = sums_of(values);
  expect_same(sums, naive(values), static_cast<double>(values.a.size()));
  EXPECT_EQ(sums.non_finite, 9u);
  uint64_t counted = 0;
  for (const uint64_t count : sums.errors) counted += count;
  EXPECT_EQ(counted + sums.non_finite, values.a.size());
  values.b[4] = 2.0f;  // the control: one other value, other sums
  EXPECT_NE(std::memcmp(sums_of(values).errors, sums.errors, sizeof sums.errors), 0);
}

TEST(ErrorSums, AreTheSameAtEveryLevel) {
  const Values values = random_values(70'001);
  ErrorSums scalar;
  {
    const ScopedIsaCap cap(Isa::scalar);
    scalar = sums_of(values);
  }
  for (const Isa isa : base_isas()) {
    const ScopedIsaCap cap(isa);
    const ErrorSums sums = sums_of(values);
    EXPECT_EQ(std::bit_cast<uint64_t>(sums.a2), std::bit_cast<uint64_t>(scalar.a2)) << name(isa);
    EXPECT_EQ(std::memcmp(&sums, &scalar, sizeof sums), 0) << name(isa);
  }
}

}  // namespace
}  // namespace mezzotint::kernel
