#include "mezzotint/kernel/cuda/codec.h"

#include "cuda/backend.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::kernel::cuda::test {
namespace {

using kernel::test::awkward_shapes;
using kernel::test::bytes_of;
using kernel::test::Fill;
using kernel::test::kSourceTypes;
using kernel::test::Shape2;

template <class B>
using CudaCodec = OnEveryBackend<B>;
TYPED_TEST_SUITE(CudaCodec, Backends, BackendName);

struct Blocks {
  int64_t rows, cols;
};
/// Two geometries for every matrix; all six come up again and again.
std::vector<Blocks> blocks_for(int64_t turn) {
  static constexpr Blocks kAll[] = {{0, 0}, {1, 0}, {0, 16}, {4, 8}, {128, 128}, {3, 5}};
  return {kAll[turn * 2 % 6], kAll[(turn * 2 + 1) % 6]};
}

/// Calls check(matrix, dtype, address offset, rng, turn).
template <class F>
void for_each_matrix(F check) {
  auto rng = test_rng();
  int64_t turn = 0;
  for (const DType dtype : kSourceTypes)
    for (const Shape2& s : awkward_shapes())
      for (const Fill kind : {Fill::weights, Fill::any_bits}) {
        Matrix m(s.rows, s.cols, bytes_of(dtype), s.gap);
        fill(m, dtype, kind, rng);
        check(m, dtype, static_cast<size_t>(s.offset * bytes_of(dtype)), rng, turn++);
      }
}

int64_t count_of(int64_t size, int64_t block) {
  return block == 0 ? 1 : (size + block - 1) / block;
}

std::vector<float> random_scales(size_t count, float typical, std::mt19937_64& rng) {
  std::vector<float> scales(count);
  for (float& s : scales) s = typical * std::exp2(std::uniform_real_distribution<float>(-2, 2)(rng));
  return scales;
}

TYPED_TEST(CudaCodec, LargestMagnitudesAreThoseOfTheCpu) {
  for_each_matrix([](Matrix& m, DType dtype, size_t offset, std::mt19937_64&, int64_t turn) {
    for (const Blocks& block : blocks_for(turn)) {
      if (m.rows() == 0 || m.cols() == 0) continue;
      const int64_t block_rows = block.rows == 0 ? m.rows() : block.rows;
      const int64_t block_cols = block.cols == 0 ? m.cols() : block.cols;
      const int64_t across = count_of(m.cols(), block_cols), down = count_of(m.rows(), block_rows);
      std::vector<float> expected(static_cast<size_t>(down * across));
      const bool non_finite = kernel::amax_blocks(m.source(dtype), block_rows, block_cols, expected.data(), across);

      DeviceMatrix<TypeParam> x(m, dtype, offset);
      typename TypeParam::Memory out(expected.size() * sizeof(float));
      typename TypeParam::Memory flag(std::vector<uint32_t>{0});
      TypeParam::amax_blocks(x.source, block.rows, block.cols, out.template as<float>(), across,
                             flag.template as<uint32_t>());
      ASSERT_EQ(out.template read<float>(), expected) << m.rows() << " x " << m.cols();
      ASSERT_EQ(flag.template read<uint32_t>()[0], non_finite ? 1u : 0u);
    }
  });
}

TYPED_TEST(CudaCodec, ManyPiecesOfOneBlockMeet) {
  auto rng = test_rng();
  Matrix m(70, 1000, 4);
  fill(m, DType::f32, Fill::weights, rng);
  DeviceMatrix<TypeParam> x(m, DType::f32);
  typename TypeParam::Memory out(sizeof(float));
  TypeParam::amax_blocks(x.source, 0, 0, out.template as<float>(), 1, static_cast<uint32_t*>(nullptr));
  const float expected = kernel::amax(m.source(DType::f32)).value;
  EXPECT_EQ(out.template read<float>()[0], expected);
  // The largest value anywhere decides.
  m.set<float>(69, 999, 2 * expected);
  DeviceMatrix<TypeParam> changed(m, DType::f32);
  TypeParam::amax_blocks(changed.source, 0, 0, out.template as<float>(), 1, static_cast<uint32_t*>(nullptr));
  EXPECT_EQ(out.template read<float>()[0], 2 * expected);
}

/// Runs a codec of the CPU and of the backend over matrices, block sizes and both roundings and compares bytes.
template <class B, class Cpu, class Device>
void same_codes(float typical, bool even, int64_t per_byte, Cpu cpu, Device device) {
  size_t different_roundings = 0;
  for_each_matrix([&](Matrix& m, DType dtype, size_t offset, std::mt19937_64& rng, int64_t turn) {
    if (even && m.cols() % 2 != 0) return;
    for (const Blocks& block : blocks_for(turn)) {
      const int64_t across = count_of(m.cols(), block.cols), down = count_of(m.rows(), block.rows);
      const auto scales = random_scales(static_cast<size_t>(down * across + 1), typical, rng);
      const int64_t stride = m.cols() / per_byte + 3;
      const ElementIndex index{rng() % 100000, static_cast<uint64_t>(m.cols()) + rng() % 7};
      std::vector<uint8_t> nearest;
      for (const Rounding rounding : {Rounding::nearest(), Rounding::stochastic(7, "layer")}) {
        std::vector<uint8_t> expected(static_cast<size_t>(m.rows() * stride), 0x5A);
        cpu(m.source(dtype), Scales::blocks(scales.data(), across, block.rows, block.cols), expected.data(), stride,
            rounding, index);
        DeviceMatrix<B> x(m, dtype, offset);
        typename B::Memory s(scales);
        typename B::Memory codes(std::vector<uint8_t>(expected.size(), 0x5A));
        device(x.source, Scales::blocks(s.template as<float>(), across, block.rows, block.cols),
               codes.template as<uint8_t>(), stride, rounding, index);
        ASSERT_EQ(codes.read(), expected)
            << m.rows() << " x " << m.cols() << " blocks " << block.rows << " x " << block.cols;
        if (rounding.mode == Rounding::Mode::stochastic && expected != nearest) ++different_roundings;
        nearest = expected;
      }
    }
  });
  EXPECT_GT(different_roundings, 50u);  // the stochastic half is no copy of the other
}

TYPED_TEST(CudaCodec, Fp8CodesAreThoseOfTheCpu) {
  for (const DType to : {DType::f8_e4m3, DType::f8_e5m2})
    same_codes<TypeParam>(
        2000.0f, false, 1,
        [&](const Source& x, const Scales& s, uint8_t* codes, int64_t stride, const Rounding& r,
            const ElementIndex& i) { kernel::encode_fp8(x, s, to, codes, stride, r, i); },
        [&](const Source& x, const Scales& s, uint8_t* codes, int64_t stride, const Rounding& r,
            const ElementIndex& i) { TypeParam::encode_fp8(x, s, to, codes, stride, r, i); });
}

TYPED_TEST(CudaCodec, Int8CodesAreThoseOfTheCpu) {
  for (const int lowest : {-128, -127})
    same_codes<TypeParam>(
        0.0005f, false, 1,
        [&](const Source& x, const Scales& s, uint8_t* codes, int64_t stride, const Rounding& r,
            const ElementIndex& i) {
          kernel::encode_int8(x, s, lowest, reinterpret_cast<int8_t*>(codes), stride, r, i);
        },
        [&](const Source& x, const Scales& s, uint8_t* codes, int64_t stride, const Rounding& r,
            const ElementIndex& i) {
          TypeParam::encode_int8(x, s, lowest, reinterpret_cast<int8_t*>(codes), stride, r, i);
        });
}

TYPED_TEST(CudaCodec, Int4CodesAreThoseOfTheCpu) {
  same_codes<TypeParam>(
      0.005f, true, 2,
      [&](const Source& x, const Scales& s, uint8_t* codes, int64_t stride, const Rounding& r, const ElementIndex& i) {
        kernel::encode_int4(x, s, codes, stride, 0, r, i);
      },
      [&](const Source& x, const Scales& s, uint8_t* codes, int64_t stride, const Rounding& r, const ElementIndex& i) {
        TypeParam::encode_int4(x, s, codes, stride, r, i);
      });
}

/// Every code once or more, decoded by both and rounded to every type.
template <class B, class Cpu, class Device>
void same_values(int64_t per_byte, Cpu cpu, Device device) {
  auto rng = test_rng();
  int64_t turn = 0;
  for (const Shape2& s : awkward_shapes()) {
    if (s.cols % per_byte != 0) continue;
    const int64_t stride = s.cols / per_byte + s.gap;
    std::vector<uint8_t> codes(static_cast<size_t>(s.rows * stride));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(rng());
    for (const Blocks& block : blocks_for(turn++)) {
      const int64_t across = count_of(s.cols, block.cols), down = count_of(s.rows, block.rows);
      auto scales = random_scales(static_cast<size_t>(down * across + 1), 1e-3f, rng);
      scales.back() = 1e38f;  // some results overflow the narrower types, and float32
      std::vector<float> floats(static_cast<size_t>(s.rows * s.cols));
      cpu(codes.data(), s.rows, s.cols, stride, Scales::blocks(scales.data(), across, block.rows, block.cols),
          floats.data(), s.cols);
      for (const DType to : kSourceTypes) {
        const auto size = static_cast<size_t>(bytes_of(to));
        std::vector<uint8_t> expected(floats.size() * size);
        kernel::cast({floats.data(), DType::f32, s.rows, s.cols, s.cols}, to, expected.data(), s.cols);
        typename B::Memory c(codes, static_cast<size_t>(s.offset)), sc(scales);
        typename B::Memory out(expected.size(), static_cast<size_t>(s.offset) * size);
        device(c.template as<const uint8_t>(), s.rows, s.cols, stride,
               Scales::blocks(sc.template as<float>(), across, block.rows, block.cols), out.template as<void>(), to,
               s.cols);
        ASSERT_EQ(out.read(), expected) << s.rows << " x " << s.cols;
      }
    }
  }
}

TYPED_TEST(CudaCodec, ValuesOfFp8CodesAreThoseOfTheCpu) {
  for (const DType code : {DType::f8_e4m3, DType::f8_e5m2})
    same_values<TypeParam>(
        1,
        [&](const uint8_t* c, int64_t rows, int64_t cols, int64_t stride, const Scales& s, float* out, int64_t to) {
          kernel::decode_fp8(c, code, rows, cols, stride, s, out, to);
        },
        [&](const uint8_t* c, int64_t rows, int64_t cols, int64_t stride, const Scales& s, void* out, DType to,
            int64_t out_stride) { TypeParam::decode(c, code, rows, cols, stride, s, out, to, out_stride); });
}

TYPED_TEST(CudaCodec, ValuesOfIntegerCodesAreThoseOfTheCpu) {
  same_values<TypeParam>(
      1,
      [&](const uint8_t* c, int64_t rows, int64_t cols, int64_t stride, const Scales& s, float* out, int64_t to) {
        kernel::decode_int8(reinterpret_cast<const int8_t*>(c), rows, cols, stride, s, out, to);
      },
      [&](const uint8_t* c, int64_t rows, int64_t cols, int64_t stride, const Scales& s, void* out, DType to,
          int64_t out_stride) { TypeParam::decode(c, DType::i8, rows, cols, stride, s, out, to, out_stride); });
  same_values<TypeParam>(
      2,
      [&](const uint8_t* c, int64_t rows, int64_t cols, int64_t stride, const Scales& s, float* out, int64_t to) {
        kernel::decode_int4(c, rows, cols, stride, 0, s, out, to);
      },
      [&](const uint8_t* c, int64_t rows, int64_t cols, int64_t stride, const Scales& s, void* out, DType to,
          int64_t out_stride) { TypeParam::decode_int4(c, rows, cols, stride, s, out, to, out_stride); });
}

/// The grid of a code by the formula of the format: clamp(rint(level * relative), -127, 127).
int grid(const std::vector<float>& codebook, uint32_t code, float relative) {
  const float level = codebook.empty() ? static_cast<float>(static_cast<int>(code) - 8) : codebook[code];
  return static_cast<int>(std::clamp(std::nearbyint(static_cast<double>(level * relative)), -127.0, 127.0));
}

TYPED_TEST(CudaCodec, CodebooksFollowTheFormula) {
  auto rng = test_rng();
  std::vector<float> levels(16);
  for (int i = 0; i < 16; ++i) levels[static_cast<size_t>(i)] = std::tanh((static_cast<float>(i) - 7.5f) * 0.2f);
  for (const int64_t group : {8, 16, 64})
    for (const std::vector<float>& codebook : {levels, std::vector<float>()})
      for (const int64_t rows : {1, 37}) {
        const int64_t cols = 192, groups = cols / group;
        std::vector<uint8_t> relative(static_cast<size_t>(rows * groups)), packed(static_cast<size_t>(rows * cols / 2));
        for (uint8_t& r : relative) r = static_cast<uint8_t>(0x60 + rng() % 0x1E);  // 32 ... 448
        for (uint8_t& q : packed) q = static_cast<uint8_t>(rng());
        const auto channel = random_scales(static_cast<size_t>(rows), 1e-4f, rng);
        const auto correction = random_scales(static_cast<size_t>(rows * groups), 1e-3f, rng);
        const auto relative_at = [&](int64_t r, int64_t c) {
          return E4m3::decode(relative[static_cast<size_t>(r * groups + c / group)]);
        };
        typename TypeParam::Memory rel(relative), ch(channel), cb(levels), co(correction);
        for (const bool corrected : {false, true}) {
          const Codebook weight{.rows = rows,
                                .cols = cols,
                                .group = group,
                                .relative = rel.template as<uint8_t>(),
                                .channel = ch.template as<float>(),
                                .codebook = codebook.empty() ? nullptr : cb.template as<float>(),
                                .correction = corrected ? co.template as<float>() : nullptr};
          typename TypeParam::Memory codes(packed), out(static_cast<size_t>(rows * cols) * 4);
          TypeParam::decode_codebook(weight, codes.template as<const uint8_t>(), out.template as<void>(), DType::f32,
                                     cols);
          const auto values = out.template read<float>();
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < cols; ++c) {
              const uint32_t code = packed[static_cast<size_t>(r * cols / 2 + c / 2)] >> (c % 2 * 4) & 15;
              float expected =
                  static_cast<float>(grid(codebook, code, relative_at(r, c))) * channel[static_cast<size_t>(r)];
              if (corrected) expected = expected + correction[static_cast<size_t>(c / group * rows + r)];
              ASSERT_EQ(values[static_cast<size_t>(r * cols + c)], expected);
            }
        }

        // Encoding: of all levels none lies nearer, and none below lies as near.
        std::vector<float> x(static_cast<size_t>(rows * cols));
        for (float& v : x) v = std::normal_distribution<float>(0, 0.01f)(rng);
        x[5] = 0;
        typename TypeParam::Memory in(x), codes(packed.size());
        const Codebook weight{.rows = rows,
                              .cols = cols,
                              .group = group,
                              .relative = rel.template as<uint8_t>(),
                              .channel = ch.template as<float>(),
                              .codebook = codebook.empty() ? nullptr : cb.template as<float>()};
        TypeParam::encode_codebook(weight, in.template as<const float>(), cols, codes.template as<uint8_t>(),
                                   Rounding{}, ElementIndex{});
        const auto got = codes.read();
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < cols; ++c) {
            const float y = x[static_cast<size_t>(r * cols + c)] / channel[static_cast<size_t>(r)];
            uint32_t best = 0;
            for (uint32_t code = 1; code < 16; ++code)
              if (std::abs(y - static_cast<float>(grid(codebook, code, relative_at(r, c)))) <
                  std::abs(y - static_cast<float>(grid(codebook, best, relative_at(r, c)))))
                best = code;
            const uint32_t code = got[static_cast<size_t>(r * cols / 2 + c / 2)] >> (c % 2 * 4) & 15;
            // Levels may coincide; which of their codes stands there is the format's affair (formats_test.cpp).
            ASSERT_EQ(grid(codebook, code, relative_at(r, c)), grid(codebook, best, relative_at(r, c)));
          }
      }
}

}  // namespace
}  // namespace mezzotint::kernel::cuda::test
