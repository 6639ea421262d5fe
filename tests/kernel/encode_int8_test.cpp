// Levels that multiply by a reciprocal and correct the product (kernel/isa_int8.h) must give what a division gives.
#include "kernel/matrix.h"
#include "mezzotint/kernel/encode.h"

namespace mezzotint::kernel::test {
namespace {

int8_t rounded(float quotient, int lowest) {
  if (std::isnan(quotient)) return 0;
  return static_cast<int8_t>(
      std::clamp(std::nearbyint(static_cast<double>(quotient)), static_cast<double>(lowest), 127.0));
}

float neighbour(float x, int steps) {
  const float towards = steps < 0 ? -INFINITY : INFINITY;
  for (int i = std::abs(steps); i > 0; --i) x = std::nextafter(x, towards);
  return x;
}

/// Random ones, powers of two, both sides of every limit that the kernel knows, and what no weight has.
std::vector<float> scales(int random) {
  std::vector<float> list = {1.0f, 0.5f, 0x1p-13f, 0x1.fffffep-8f, 0x1.fffffcp-8f, 0x1.000002p-8f, 1e-30f, 1e30f};
  for (const float limit : {0x1p-100f, 0x1p+100f, 0x1p-126f, 0x1p-149f, 0x1p-140f, 0x1p+127f})
    for (const int steps : {-1, 0, 1}) list.push_back(neighbour(limit, steps));
  for (const float odd : {0.0f, -0.0f, -0.01f, INFINITY, -INFINITY, NAN, 0x1.fffffep+127f}) list.push_back(odd);
  auto rng = test_rng();
  for (int i = 0; i < random; ++i) {
    const float spread = i % 4 == 0 ? 90 : 12;
    list.push_back(std::exp2(std::uniform_real_distribution<float>(-spread, spread)(rng)));
  }
  return list;
}

/// Codes of one row at every level, compared with the division.
void expect_division(Matrix& x, DType dtype, float scale) {
  for (const int lowest : {-128, -127}) {
    Matrix got = same_at_every_level(Matrix(1, x.cols(), 1, 0, 5), [&](Matrix& out) {
      encode_int8(x.source(dtype), Scales::scalar(&scale), lowest, reinterpret_cast<int8_t*>(out.data()), out.stride());
    });
    for (int64_t c = 0; c < x.cols(); ++c)
      ASSERT_EQ(got.get<int8_t>(0, c), rounded(value(x, dtype, 0, c) / scale, lowest))
          << c << ": " << value(x, dtype, 0, c) << " / " << scale;
  }
}

// Ordered by size, so that long runs hold nothing that needs the division itself and others hold nothing else; and
// shuffled, so that the two meet.
TEST(EncodeInt8, EverySixteenBitInputAtManyScales) {
  auto rng = test_rng();
  std::vector<uint16_t> codes(65536);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint16_t>(i / 2 | (i % 2) << 15);
  std::vector<uint16_t> shuffled = codes;
  std::shuffle(shuffled.begin(), shuffled.end(), rng);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Matrix ordered(1, 65536, 2, 0, 2), mixed(1, 65536, 2, 0, 1);
    for (int64_t i = 0; i < 65536; ++i) {
      ordered.set<uint16_t>(0, i, codes[static_cast<size_t>(i)]);
      mixed.set<uint16_t>(0, i, shuffled[static_cast<size_t>(i)]);
    }
    for (const float scale : scales(40)) {
      expect_division(ordered, dtype, scale);
      expect_division(mixed, dtype, scale);
      if (HasFatalFailure()) return;
    }
  }
}

// float32 values at and around the places where a code changes. The product with the reciprocal alone must fail here.
TEST(EncodeInt8, DividesAroundEveryTie) {
  int64_t by_product = 0, ties = 0;
  for (const float scale : scales(600)) {
    Matrix x(1, 256 * 7, 4, 0, 3);
    for (int64_t i = 0; i < x.cols(); ++i)
      x.set<float>(0, i,
                   neighbour(static_cast<float>((static_cast<double>(i / 7) - 127.5) * static_cast<double>(scale)),
                             static_cast<int>(i % 7) - 3));
    expect_division(x, DType::f32, scale);
    if (HasFatalFailure()) return;
    for (int64_t i = 0; i < x.cols(); ++i) {
      const float v = x.get<float>(0, i), quotient = v / scale;
      by_product += rounded(v * (1.0f / scale), -128) != rounded(quotient, -128);
      ties += std::abs(quotient) < 128 && std::abs(quotient - std::trunc(quotient)) == 0.5f;
    }
  }
  EXPECT_GT(by_product, 1000);
  EXPECT_GT(ties, 100000);
}

// One element that the fast way does not cover must neither be wrong nor spoil others, wherever it stands.
TEST(EncodeInt8, ValuesBeyondTheFastWay) {
  auto rng = test_rng();
  const float scale = 0.0123f, limit = scale * 0x1p+14f;
  const std::vector<float> odd = {limit,
                                  neighbour(limit, 1),
                                  -limit,
                                  limit * 2,
                                  -limit * 2,
                                  scale * 40000,
                                  1e20f,
                                  -1e20f,
                                  3.4e38f,
                                  -3.4e38f,
                                  INFINITY,
                                  -INFINITY,
                                  NAN,
                                  scale * 65600,
                                  1e-45f,
                                  scale * 2147483648.0f,
                                  -scale * 2147483648.0f};
  for (const DType dtype : kSourceTypes)
    for (const int64_t cols : {31, 32, 63, 64, 65, 127, 1023, 1024, 1061, 8192 + 7, 16384 + 63, 33000})
      for (const float x : odd) {
        Matrix m(1, cols, bytes_of(dtype), 0, 2);
        fill(m, dtype, Fill::weights, rng);
        const int64_t at = static_cast<int64_t>(rng() % static_cast<uint64_t>(cols));
        if (dtype == DType::f32) m.set<float>(0, at, x);
        if (dtype == DType::bf16) m.set<uint16_t>(0, at, static_cast<uint16_t>(Bf16::encode(x)));
        if (dtype == DType::f16) m.set<uint16_t>(0, at, static_cast<uint16_t>(Fp16::encode(x)));
        expect_division(m, dtype, scale);
        if (HasFatalFailure()) return;
      }
}

/// The three steps of isa_int8.h.
float corrected_product(float x, float scale, float reciprocal) {
  const float near = x * reciprocal;
  return std::fma(std::fma(-near, scale, x), reciprocal, near);
}

// Whole quotients, not only their codes: random significands, and those near 2 where the product is furthest off.
TEST(EncodeInt8, TheCorrectedProductIsTheQuotient) {
  auto rng = test_rng();
  int64_t wrong = 0, wrong_product = 0;
  for (int i = 0; i < 4'000'000; ++i) {
    const uint32_t bits = i % 2 == 0 ? 23 : 6;  // how far below 2
    const float x = 2.0f - std::ldexp(static_cast<float>(rng() % (1u << bits) + 1), -23);
    const float scale = 2.0f - std::ldexp(static_cast<float>(rng() % (1u << bits) + 1), -23);
    const float reciprocal = 1.0f / scale;
    wrong += corrected_product(x, scale, reciprocal) != x / scale;
    wrong_product += x * reciprocal != x / scale;
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(wrong_product, 400'000);
}

}  // namespace
}  // namespace mezzotint::kernel::test
