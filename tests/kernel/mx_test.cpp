#include "mezzotint/kernel/mx.h"

#include "kernel/matrix.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::kernel::test {
namespace {

float power(uint32_t b) {
  return b == 0 ? 0.0f : std::ldexp(1.0f, static_cast<int>(b) - 127);
}

/// All bf16 values, first in order, so that whole blocks are normal or not, then mixed.
Matrix every_bf16() {
  Matrix m(512, 256, 2, 3, 2);
  for (int64_t i = 0; i < 65536; ++i) {
    m.set(i / 256, i % 256, static_cast<uint16_t>(i));
    m.set(256 + i / 256, i % 256, static_cast<uint16_t>(i * 40503));
  }
  return m;
}

/// Scale bytes at the ends of what vectors take, and beyond.
constexpr uint8_t kScales[] = {0, 1, 6, 7, 8, 9, 100, 120, 127, 133, 245, 246, 247, 253, 254};

TEST(Mx, EncodesEveryBf16ByTheFormula) {
  Matrix m = every_bf16();
  int64_t other = 0;
  for (const uint8_t b : kScales) {
    // A neighbour of another scale in every other block.
    const std::vector<uint8_t> scales = {b, 127, b, 8, b, 0, b, b};
    Matrix got = same_at_every_level(Matrix(512, 256, 1, 5), [&](Matrix& out) {
      encode_mx(m.source(DType::bf16), scales.data(), 0, 0, out.data(), out.stride());
    });
    for (int64_t r = 0; r < 512; ++r)
      for (int64_t c = 0; c < 256; ++c) {
        const uint32_t own = scales[static_cast<size_t>(c / kMxBlock)];
        const float x = value(m, DType::bf16, r, c);
        const auto multiplier = static_cast<float>(std::ldexp(1.0, 127 - static_cast<int>(own)));
        const uint32_t code = own == 0 ? 0 : E4m3::encode_saturating(x * multiplier);
        ASSERT_EQ(got.get<uint8_t>(r, c), code) << x << " at scale " << own;
        other += code != E4m3::encode_saturating(std::nextafter(x * multiplier, 0.0f));
      }
  }
  EXPECT_GT(other, 1000);  // the last bit of a value is seen
}

TEST(Mx, DecodesEveryCodeByTheFormula) {
  Matrix codes(2, 8 * kMxBlock, 1, 1);
  for (int64_t c = 0; c < 256; ++c) {
    codes.set(0, c, static_cast<uint8_t>(c));
    codes.set(1, c, static_cast<uint8_t>(c * 37));
  }
  for (uint32_t b = 0; b < 256; ++b) {
    const std::vector<uint8_t> scales(8, static_cast<uint8_t>(b));
    Matrix got = same_at_every_level(Matrix(2, 256, 2), [&](Matrix& out) {
      decode_mx(codes.data(), scales.data(), 0, 2, 256, 0, codes.stride(), reinterpret_cast<uint16_t*>(out.data()),
                out.stride());
    });
    for (int64_t r = 0; r < 2; ++r)
      for (int64_t c = 0; c < 256; ++c) {
        const float y = E4m3::decode(codes.get<uint8_t>(r, c)) * (b == 255 ? INFINITY : power(b));
        const float stored = Bf16::decode(got.get<uint16_t>(r, c));
        if (std::isnan(y))
          ASSERT_TRUE(std::isnan(stored));
        else
          ASSERT_EQ(got.get<uint16_t>(r, c), Bf16::encode(y)) << y << " at scale " << b;
      }
  }
}

TEST(Mx, ChoosesScalesOfEveryMagnitude) {
  // One value per block of zeros, everywhere in it; 20 blocks to a row, the last of 7 columns.
  constexpr int64_t kCols = 19 * kMxBlock + 7, kRows = 3277;
  Matrix m(kRows, kCols, 2);
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < kCols; ++c) m.set<uint16_t>(r, c, 0);
  for (int64_t i = 0; i < kRows * 20; ++i) {
    const int64_t b = i % 20;
    m.set(i / 20, b * kMxBlock + i % (b == 19 ? 7 : kMxBlock), static_cast<uint16_t>(i));
  }
  Matrix got = same_at_every_level(Matrix(kRows, 20, 1), [&](Matrix& out) {
    EXPECT_TRUE(mx_scales(m.source(DType::bf16), out.data(), out.stride()));
  });
  for (int64_t i = 0; i < kRows * 20; ++i) {
    const float amax = std::abs(Bf16::decode(static_cast<uint16_t>(i)));
    int wanted = 0;
    if (std::isfinite(amax) && amax > 0) {
      int exponent = 0;
      const float mantissa = std::frexp(amax / 448.0f, &exponent);  // in [0.5, 1)
      wanted = std::clamp((mantissa == 0.5f ? exponent - 1 : exponent) + 127, 1, 254);
    } else if (!std::isfinite(amax)) {
      wanted = 1;  // something was seen, nothing of it is finite
    }
    ASSERT_EQ(got.get<uint8_t>(i / 20, i % 20), wanted) << amax;
  }
}

}  // namespace
}  // namespace mezzotint::kernel::test
