#include <gtest/gtest.h>

#include <cfenv>
#include <cmath>

#include "base/oracle.h"
#include "mezzotint/base/integer.h"

namespace mezzotint::test {
namespace {

int32_t expected(float x, int lowest) {
  if (std::isnan(x)) return 0;
  return static_cast<int32_t>(std::fmin(std::fmax(std::nearbyint(static_cast<double>(x)), lowest), 127));
}

TEST(Int8Rounding, AgreesWithNearbyintOnAllFloats) {
  ASSERT_EQ(std::fegetround(), FE_TONEAREST);
  uint64_t wrong = 0, control = 0;
  for (uint64_t bits = 0; bits < 0x100000000; bits += 199) {
    const float x = float_of(static_cast<uint32_t>(bits));
    for (const int lowest : {-128, -127})
      wrong += Int8::encode(x, static_cast<float>(lowest), 127) != expected(x, lowest);
    control += Int8::encode(x + 0.25f, -128, 127) != expected(x, -128);
  }
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(control, 0u);
}

TEST(Int8Rounding, TiesGoToEvenAndNeighboursDoNot) {
  for (int i = -130; i < 130; ++i)
    for (const float tie : {static_cast<float>(i) + 0.5f, static_cast<float>(i)})
      for (const float x : {tie, std::nextafterf(tie, INFINITY), std::nextafterf(tie, -INFINITY)})
        for (const int lowest : {-128, -127})
          EXPECT_EQ(Int8::encode(x, static_cast<float>(lowest), 127), expected(x, lowest)) << x;
}

TEST(Int8Rounding, SpecialValues) {
  EXPECT_EQ(Int8::encode(INFINITY, -128, 127), 127);
  EXPECT_EQ(Int8::encode(-INFINITY, -128, 127), -128);
  EXPECT_EQ(Int8::encode(-INFINITY, -127, 127), -127);
  EXPECT_EQ(Int8::encode(NAN, -127, 127), 0);
  EXPECT_EQ(Int8::encode_stochastic(NAN, -127, 127, ~0u), 0);
}

}  // namespace
}  // namespace mezzotint::test
