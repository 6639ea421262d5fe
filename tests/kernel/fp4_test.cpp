#include "mezzotint/kernel/fp4.h"

#include "kernel/matrix.h"
#include "mezzotint/base/e2m1.h"

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

}  // namespace
}  // namespace mezzotint::kernel::test
