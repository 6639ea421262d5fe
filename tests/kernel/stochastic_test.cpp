// Stochastic kernels: the same bytes for every level and split, the codecs' own results element by element, unbiased.
#include "kernel/matrix.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/integer.h"
#include "mezzotint/base/philox.h"
#include "mezzotint/kernel/encode.h"

namespace mezzotint::kernel::test {
namespace {

const Rounding kRounding = Rounding::stochastic(7, "layer.weight");

TEST(StochasticKernels, AreTheCodecsWithTheElementsRandomBits) {
  auto rng = test_rng();
  const float multiplier = 700.0f, scale = 0.003f;
  for (const DType dtype : kSourceTypes)
    for (const Shape2& s : awkward_shapes())
      for (const Fill kind : {Fill::weights, Fill::any_bits}) {
        Matrix m(s.rows, s.cols, bytes_of(dtype), s.gap, s.offset);
        fill(m, dtype, kind, rng);
        const ElementIndex index{rng() >> 20, static_cast<uint64_t>(s.cols + s.gap)};
        const Matrix blank(s.rows, s.cols, 1, s.gap, s.offset);
        const auto word = [&](int64_t r, int64_t c) {
          return random_bits(kRounding.key,
                             index.first + static_cast<uint64_t>(r) * index.row_stride + static_cast<uint64_t>(c));
        };
        Matrix e4m3 = same_at_every_level(blank, [&](Matrix& out) {
          encode_fp8(m.source(dtype), Scales::scalar(&multiplier), DType::f8_e4m3, out.data(), out.stride(), kRounding,
                     index);
        });
        Matrix e5m2 = same_at_every_level(blank, [&](Matrix& out) {
          encode_fp8(m.source(dtype), Scales::scalar(&multiplier), DType::f8_e5m2, out.data(), out.stride(), kRounding,
                     index);
        });
        Matrix int8 = same_at_every_level(blank, [&](Matrix& out) {
          encode_int8(m.source(dtype), Scales::scalar(&scale), -127, reinterpret_cast<int8_t*>(out.data()),
                      out.stride(), kRounding, index);
        });
        for (int64_t r = 0; r < s.rows; ++r)
          for (int64_t c = 0; c < s.cols; ++c) {
            const float x = value(m, dtype, r, c);
            ASSERT_EQ(e4m3.get<uint8_t>(r, c), E4m3::encode_stochastic(x * multiplier, word(r, c)));
            ASSERT_EQ(e5m2.get<uint8_t>(r, c), E5m2::encode_stochastic(x * multiplier, word(r, c)));
            ASSERT_EQ(int8.get<int8_t>(r, c), Int8::encode_stochastic(x / scale, -127, 127, word(r, c)));
          }
        if (dtype != DType::f32) continue;
        for (const DType to : {DType::bf16, DType::f16}) {
          Matrix half = same_at_every_level(Matrix(s.rows, s.cols, 2, s.gap, s.offset), [&](Matrix& out) {
            cast_stochastic(m.source(dtype), to, out.data(), out.stride(), kRounding, index);
          });
          for (int64_t r = 0; r < s.rows; ++r)
            for (int64_t c = 0; c < s.cols; ++c) {
              const float x = value(m, dtype, r, c);
              ASSERT_EQ(half.get<uint16_t>(r, c), to == DType::bf16 ? Bf16::encode_stochastic(x, word(r, c))
                                                                    : Fp16::encode_stochastic(x, word(r, c)));
            }
        }
      }
}

TEST(StochasticKernels, BytesDoNotDependOnTheTiles) {
  auto rng = test_rng();
  constexpr int64_t kRows = 37, kCols = 211;
  Matrix m(kRows, kCols, 4);
  fill(m, DType::f32, Fill::weights, rng);
  const float multiplier = 500;
  const auto encode = [&](Matrix& out, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    encode_fp8({m.at(r0, c0), DType::f32, r1 - r0, c1 - c0, m.stride()}, Scales::scalar(&multiplier), DType::f8_e4m3,
               out.at(r0, c0), out.stride(), kRounding, {static_cast<uint64_t>(r0 * kCols + c0), kCols});
  };
  Matrix whole(kRows, kCols, 1);
  encode(whole, 0, kRows, 0, kCols);
  for (int trial = 0; trial < 100; ++trial) {
    const auto rows = static_cast<int64_t>(1 + rng() % kRows), cols = static_cast<int64_t>(1 + rng() % kCols);
    Matrix tiled(kRows, kCols, 1);
    for (int64_t r = 0; r < kRows; r += rows)
      for (int64_t c = 0; c < kCols; c += cols)
        encode(tiled, r, std::min(r + rows, kRows), c, std::min(c + cols, kCols));
    ASSERT_EQ(tiled.elements(), whole.elements());
  }
  // Negative control: another first index, key or name gives other bytes.
  Matrix other(kRows, kCols, 1);
  encode_fp8(m.source(DType::f32), Scales::scalar(&multiplier), DType::f8_e4m3, other.data(), kCols, kRounding,
             {1, kCols});
  EXPECT_NE(other.elements(), whole.elements());
  encode_fp8(m.source(DType::f32), Scales::scalar(&multiplier), DType::f8_e4m3, other.data(), kCols,
             Rounding::stochastic(7, "layer.weighs"), {0, kCols});
  EXPECT_NE(other.elements(), whole.elements());
}

/// Mean of 2^20 roundings of one value; its standard deviation is at most half a step / 2^10.
TEST(StochasticKernels, TheMeanIsTheValue) {
  constexpr int64_t kCount = 1 << 20;
  const float one = 1;
  std::vector<uint8_t> codes(kCount);
  for (const float x : {17.3f, -300.0f, 0.0101f, 0.0004f, 447.0f, 2.0f}) {
    const std::vector<float> input(kCount, x);
    double means[2];
    for (const bool stochastic : {false, true}) {
      encode_fp8({input.data(), DType::f32, 1, kCount, kCount}, Scales::scalar(&one), DType::f8_e4m3, codes.data(),
                 kCount, stochastic ? kRounding : Rounding::nearest());
      double sum = 0;
      for (const uint8_t code : codes) sum += static_cast<double>(E4m3::decode(code));
      means[stochastic] = sum / kCount;
    }
    const double step = std::max(0x1p-9, std::exp2(std::floor(std::log2(std::abs(static_cast<double>(x)))) - 3));
    const double bound = 5 * 0.5 * step / std::sqrt(static_cast<double>(kCount));
    EXPECT_NEAR(means[1], static_cast<double>(x), bound);
    if (x != 2.0f) {
      EXPECT_GT(std::abs(means[0] - static_cast<double>(x)), bound);  // control: nearest is biased here
    }
  }
}

}  // namespace
}  // namespace mezzotint::kernel::test
