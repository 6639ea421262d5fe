#include <gtest/gtest.h>

#include <cmath>

#include "base/oracle.h"
#include "mezzotint/base/e8m0.h"

namespace mezzotint::test {
namespace {

TEST(E8m0, DecodesEveryCode) {
  for (uint32_t code = 0; code < 255; ++code)
    EXPECT_EQ(static_cast<double>(E8m0::decode(code)), std::ldexp(1.0, static_cast<int>(code) - 127));
  EXPECT_TRUE(std::isnan(E8m0::decode(255)));
}

TEST(E8m0, EncodesBetweenEveryPairOfCodes) {
  for (uint32_t code = 0; code < 254; ++code) {
    const double low = std::ldexp(1.0, static_cast<int>(code) - 127);
    const auto exact = static_cast<float>(low), tie = static_cast<float>(1.5 * low);
    const auto next = static_cast<float>(2 * low);
    const float above = std::nextafterf(exact, INFINITY), below_next = std::nextafterf(next, 0);
    for (const float x : {exact, above, std::nextafterf(tie, 0), tie, below_next, next, -exact, -tie}) {
      const float a = std::abs(x);
      EXPECT_EQ(E8m0::encode_floor(x), a == next ? code + 1 : code) << x;
      EXPECT_EQ(E8m0::encode_ceil(x), a == exact ? code : code + 1) << x;
      EXPECT_EQ(E8m0::encode(x), static_cast<double>(a) < 1.5 * low ? code : code + 1) << x;
      const uint32_t stochastic = E8m0::encode_stochastic(x, 0x9ABCDEF0);
      EXPECT_TRUE(stochastic == E8m0::encode_floor(x) || stochastic == E8m0::encode_ceil(x)) << x;
    }
  }
}

TEST(E8m0, EncodesTheEnds) {
  for (const auto encode :
       {+[](float x) { return E8m0::encode(x); }, +[](float x) { return E8m0::encode_floor(x); },
        +[](float x) { return E8m0::encode_ceil(x); }, +[](float x) { return E8m0::encode_stochastic(x, ~0u); }}) {
    for (const float x : {0.0f, -0.0f, 0x1p-149f, -0x1p-128f, 0x1p-127f}) EXPECT_EQ(encode(x), 0u) << x;
    for (const float x : {0x1p127f, 0x1.8p127f, 0x1.FFFFFEp127f, INFINITY, -INFINITY}) EXPECT_EQ(encode(x), 254u) << x;
    for (const uint32_t bits : {0x7F800001u, 0x7FC00000u, 0xFFFFFFFFu}) EXPECT_EQ(encode(float_of(bits)), 255u);
  }
}

}  // namespace
}  // namespace mezzotint::test
