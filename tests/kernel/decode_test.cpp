#include "mezzotint/kernel/decode.h"

#include <limits>

#include "kernel/matrix.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::kernel::test {
namespace {

using mezzotint::test::FloatSpec;

/// Every code under scales per tensor, row and block, at awkward widths.
template <class Decode, class Value>
void check(Decode decode, Value value_of) {
  auto rng = test_rng();
  for (const Shape2& s : awkward_shapes())
    for (const auto& [br, bc, row0, col0] : {std::tuple<int64_t, int64_t, int64_t, int64_t>{0, 0, 0, 0},
                                             {1, 0, 3, 0},
                                             {4, 8, 2, 3},
                                             {128, 128, 100, 100}}) {
      Matrix codes(s.rows, s.cols, 1, s.gap, s.offset);
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t c = 0; c < s.cols; ++c) codes.set<uint8_t>(r, c, static_cast<uint8_t>(rng()));
      const int64_t stride = bc == 0 ? 1 : (col0 + s.cols) / bc + 1;
      std::vector<float> scales(static_cast<size_t>((br == 0 ? 1 : (row0 + s.rows) / br + 1) * stride));
      for (float& scale : scales) scale = std::uniform_real_distribution<float>(1e-4f, 3)(rng);
      const Scales grid{scales.data(), br, bc, stride, row0, col0};
      Matrix got = same_at_every_level(Matrix(s.rows, s.cols, 4, s.gap), [&](Matrix& out) {
        decode(codes, grid, reinterpret_cast<float*>(out.data()), out.stride());
      });
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t c = 0; c < s.cols; ++c) {
          const int64_t at = (br == 0 ? 0 : (row0 + r) / br * stride) + (bc == 0 ? 0 : (col0 + c) / bc);
          const float want = static_cast<float>(value_of(codes.get<uint8_t>(r, c))) * scales[static_cast<size_t>(at)];
          const float have = got.get<float>(r, c);
          if (std::isnan(want)) {
            ASSERT_TRUE(std::isnan(have));
          } else {
            ASSERT_EQ(std::bit_cast<uint32_t>(have), std::bit_cast<uint32_t>(want)) << r << "," << c;
          }
        }
    }
}

TEST(Decode, Fp8) {
  for (const auto& [dtype, spec] : {std::pair{DType::f8_e4m3, FloatSpec{4, 3, false, true}},
                                    std::pair{DType::f8_e5m2, FloatSpec{5, 2, true, true}}})
    check(
        [dtype = dtype](Matrix& codes, const Scales& scales, float* out, int64_t stride) {
          decode_fp8(codes.data(), dtype, codes.rows(), codes.cols(), codes.stride(), scales, out, stride);
        },
        [spec = spec](uint8_t code) { return spec.value(code); });
}

TEST(Decode, Int8) {
  check(
      [](Matrix& codes, const Scales& scales, float* out, int64_t stride) {
        decode_int8(reinterpret_cast<const int8_t*>(codes.data()), codes.rows(), codes.cols(), codes.stride(), scales,
                    out, stride);
      },
      [](uint8_t code) { return code < 128 ? static_cast<double>(code) : static_cast<double>(code) - 256; });
}

/// Every code in every place of a row, under scales that keep the products normal and others. None is NaN: which NaN
/// the product of two is, processors and compilers choose.
template <class Decode>
void check_bf16(Decode decode) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float scale :
       {0.37f, -3.1f, 1.0f, 0.0f, 0x1p-130f, 0x1p-149f, 0x1p119f, 0x1p120f, 0x1.fffffep127f, kInf, -kInf})
    for (const int64_t cols : {1, 15, 16, 33, 300}) {
      constexpr int64_t kRows = 64;
      Matrix codes(kRows, cols, 1);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t c = 0; c < cols; ++c) codes.set<uint8_t>(r, c, static_cast<uint8_t>(r * 37 + c));
      const Scales one = Scales::scalar(&scale);
      Matrix wide(kRows, cols, 4), want(kRows, cols, 2);
      {
        const ScopedIsaCap cap(Isa::scalar);
        decode(codes, one, reinterpret_cast<float*>(wide.data()), wide.stride());
        cast({wide.data(), DType::f32, kRows, cols, wide.stride()}, DType::bf16, want.data(), want.stride());
      }
      Matrix got = same_at_every_level(Matrix(kRows, cols, 2), [&](Matrix& out) {
        decode(codes, one, reinterpret_cast<uint16_t*>(out.data()), out.stride());
      });
      ASSERT_TRUE(got.elements() == want.elements()) << scale << ", " << cols << " columns";
      if (cols == 300 && scale == 1.0f) {
        want.set<uint16_t>(5, 7, static_cast<uint16_t>(want.get<uint16_t>(5, 7) ^ 1));
        EXPECT_FALSE(got.elements() == want.elements()) << "control MISSED";
      }
    }
}

TEST(Decode, Fp8ToBf16) {
  for (const DType dtype : {DType::f8_e4m3, DType::f8_e5m2}) {
    const auto decode = [dtype](Matrix& codes, const Scales& scales, auto* out, int64_t stride) {
      decode_fp8(codes.data(), dtype, codes.rows(), codes.cols(), codes.stride(), scales, out, stride);
    };
    check_bf16(decode);
  }
}

TEST(Decode, Int8ToBf16) {
  const auto decode = [](Matrix& codes, const Scales& scales, auto* out, int64_t stride) {
    decode_int8(reinterpret_cast<const int8_t*>(codes.data()), codes.rows(), codes.cols(), codes.stride(), scales, out,
                stride);
  };
  check_bf16(decode);
}

}  // namespace
}  // namespace mezzotint::kernel::test
