#include "mezzotint/kernel/fp4.h"

#include "kernel/matrix.h"
#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e4m3.h"

namespace mezzotint::kernel::test {
namespace {

/// Scales that put the middles between two codes on, beside and far from bf16 values.
std::vector<float> awkward_scales() {
  auto rng = test_rng();
  std::vector<float> scales = {0.0f, 1.0f, 0x1p-149f, 0x1p-126f, 0x1p-61f, 0x1p-60f, 0x1p60f, 0x1p61f, 0x1p120f};
  for (const float middle : {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f})
    for (int mantissa = 128; mantissa < 256; mantissa += 11) {
      const float on = static_cast<float>(mantissa) / middle;
      float below = on, above = on;
      scales.push_back(on);
      for (int step = 0; step < 3; ++step) {
        scales.push_back(below = std::nextafter(below, 0.0f));
        scales.push_back(above = std::nextafter(above, 1e9f));
      }
    }
  std::uniform_real_distribution<float> exponent(-12, 4);
  for (int i = 0; i < 64; ++i) scales.push_back(std::exp2(exponent(rng)));
  while (scales.size() % 16 != 0) scales.push_back(3.0f);
  return scales;
}

uint32_t expected_code(float x, float t) {
  return E2m1::encode(t == 0 ? 0.0f : x / t);
}

/// bf16 bits with every mantissa, subnormal, around the scales, inf and NaN.
std::vector<uint16_t> bf16_bits() {
  std::vector<uint16_t> bits;
  for (int exponent = 0; exponent < 256; ++exponent)
    if (exponent < 2 || exponent > 253 || (exponent > 120 && exponent < 141) || exponent == 60)
      for (int mantissa = 0; mantissa < 128; ++mantissa)
        bits.push_back(static_cast<uint16_t>((bits.size() * 7 >> 3 & 1) << 15 | exponent << 7 | mantissa));
  return bits;
}

TEST(Fp4, EncodesEveryBf16ByTheFormulaWithAwkwardScales) {
  // A column of blocks for every scale; all values down the rows.
  const std::vector<float> scales = awkward_scales();
  const std::vector<uint16_t> bits = bf16_bits();
  const int64_t rows = static_cast<int64_t>(bits.size()) / kFp4Block;
  Matrix m(rows, static_cast<int64_t>(scales.size()) * kFp4Block, 2);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < m.cols(); ++c) m.set(r, c, bits[static_cast<size_t>(r * kFp4Block + c % kFp4Block)]);
  const Scales factors = Scales::blocks(scales.data(), 0, 1, kFp4Block);
  const Matrix blank(rows, m.cols() / 2, 1);
  Matrix got = same_at_every_level(
      blank, [&](Matrix& out) { encode_fp4(m.source(DType::bf16), factors, out.data(), out.stride()); });
  int64_t ties = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < m.cols(); ++c) {
      const float x = value(m, DType::bf16, r, c), t = scales[static_cast<size_t>(c / kFp4Block)];
      const uint32_t code = *got.at(r, c / 2) >> (c % 2 == 0 ? 4 : 0) & 15u;
      ASSERT_EQ(code, expected_code(x, t)) << x << " / " << t;
      ties += code != expected_code(x, std::nextafter(t, 0.0f));
    }
  // The last bit of the scale matters in many places, so a rounded comparison would be seen.
  EXPECT_GT(ties, 100);
}

/// Rows of 53 blocks, the last of 9 columns: weights, zeros, single values, subnormals, coarse values that tie, and in
/// every fifth row inf and NaN.
Matrix awkward_blocks() {
  auto rng = test_rng();
  std::normal_distribution<float> normal(0, 0.02f);
  std::uniform_int_distribution<int> kind(0, 9), bits(0, 0xFFFF);
  Matrix m(40, 52 * kFp4Block + 9, 2, 1);
  for (int64_t r = 0; r < m.rows(); ++r)
    for (int64_t c = 0, k = 0; c < m.cols(); ++c) {
      if (c % kFp4Block == 0) k = kind(rng);
      auto code = static_cast<uint16_t>(Bf16::encode(normal(rng) * (k == 5 ? 0x1p-12f : 1.0f)));
      if (k == 0 || (k == 1 && c % kFp4Block != 3)) code = static_cast<uint16_t>(code & 0x8000);
      if (k == 2) code = static_cast<uint16_t>(code & 0x80FF);
      if (k == 3) code = static_cast<uint16_t>(code & 0xFFE0);
      if (k == 4 && r % 5 == 0 && c % 7 == 0) code = static_cast<uint16_t>(bits(rng) | 0x7F80);
      m.set(r, c, code);
    }
  return m;
}

TEST(Fp4, ScalesFollowTheFormulaAtEveryLevel) {
  Matrix m = awkward_blocks();
  const int64_t across = m.cols() / kFp4Block + 1;
  for (const float global : {0.08f / 2688, 0.08f / 1536, 0x1p-14f, 1e-9f, 1e30f, 0x1p-149f}) {
    Matrix got = same_at_every_level(Matrix(m.rows(), across, 1), [&](Matrix& out) {
      EXPECT_TRUE(fp4_scales(m.source(DType::bf16), global, out.data(), out.stride()));
    });
    int64_t sensitive = 0;
    for (int64_t r = 0; r < m.rows(); ++r)
      for (int64_t b = 0; b < across; ++b) {
        float amax = 0;
        for (int64_t c = b * kFp4Block; c < std::min(m.cols(), (b + 1) * kFp4Block); ++c) {
          const float x = std::abs(value(m, DType::bf16, r, c));
          if (std::isfinite(x)) amax = std::max(amax, x);
        }
        const uint32_t code = E4m3::encode_saturating(amax / 6.0f / global);
        ASSERT_EQ(got.get<uint8_t>(r, b), code) << amax << " with " << global;
        sensitive += code != E4m3::encode_saturating(amax / 5.9f / global);
      }
    if (global < 1e-4f && global > 1e-5f) {
      EXPECT_GT(sensitive, 100);
    }
  }
}

/// The definition of Fp4Search::two, column by column.
uint8_t better_of_two(const std::vector<float>& x, float global) {
  float amax = 0;
  for (const float v : x) amax = std::max(amax, std::abs(v));
  if (amax == 0) return 0;
  float least = INFINITY;
  uint32_t best = E4m3::encode_saturating(std::max(amax / 6.0f / global, E4m3::kStep));
  for (const float factor : {1.0f, 1.5f}) {
    const uint32_t code = E4m3::encode_saturating(std::max(amax / 6.0f / global * factor, E4m3::kStep));
    const float scale = E4m3::decode(code), reciprocal = 1.0f / (global * scale);
    float error = 0;
    for (const float v : x) {
      const float y = std::abs(v) * reciprocal, d = E2m1::decode(E2m1::encode(y)) - y;
      error += d * d;
    }
    error *= scale * scale;
    if (error < least) {
      least = error;
      best = code;
    }
  }
  return static_cast<uint8_t>(best);
}

TEST(Fp4, FourOverSixFollowsTheDefinitionAtEveryLevel) {
  Matrix m = awkward_blocks();
  const int64_t across = m.cols() / kFp4Block + 1;
  for (const float global : {0.08f / 1536, 0x1p-14f, 1e-9f, 0x1p-149f}) {
    Matrix got = same_at_every_level(Matrix(m.rows(), across, 1), [&](Matrix& out) {
      EXPECT_TRUE(search_fp4_scales(m.source(DType::bf16), global, nullptr, Fp4Search::two, out.data(), out.stride()));
    });
    int64_t raised = 0;
    for (int64_t r = 0; r < m.rows(); ++r)
      for (int64_t b = 0; b < across; ++b) {
        std::vector<float> x(kFp4Block, 0.0f);
        float amax = 0;
        for (int64_t c = b * kFp4Block; c < std::min(m.cols(), (b + 1) * kFp4Block); ++c) {
          const float v = value(m, DType::bf16, r, c);
          x[static_cast<size_t>(c % kFp4Block)] = std::isfinite(v) ? v : 0.0f;
          amax = std::max(amax, std::abs(x[static_cast<size_t>(c % kFp4Block)]));
        }
        ASSERT_EQ(got.get<uint8_t>(r, b), better_of_two(x, global)) << amax << " with " << global;
        raised += got.get<uint8_t>(r, b) > E4m3::encode_saturating(amax / 6.0f / global);
      }
    if (global > 1e-5f) {
      EXPECT_GT(raised, 100);
    }
  }
}

}  // namespace
}  // namespace mezzotint::kernel::test
