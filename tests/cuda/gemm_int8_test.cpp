#include "mezzotint/kernel/cuda/gemm_int8.h"

#include "cuda/backend.h"

namespace mezzotint::kernel::cuda::test {
namespace {

using kernel::test::bytes_of;

template <class B>
using CudaGemmInt8 = OnEveryBackend<B>;
TYPED_TEST_SUITE(CudaGemmInt8, Backends, BackendName);

constexpr double kUnit = 0x1p-24;

struct Case {
  int64_t m, n, k;
  int64_t x_gap = 0, w_gap = 0;  // of rows
  size_t offset = 0;             // of addresses
  bool extremes = false;         // all codes -128
};
// Tiles of 128 and 32 rows by 128, pieces of 64, blocks of 128; rows that 16 does not divide; more bands than one.
constexpr Case kCases[] = {{1, 1, 1},
                           {1, 300, 128},
                           {3, 17, 33, 5, 2, 1},
                           {32, 128, 64},
                           {33, 130, 192},
                           {31, 7, 512, 16, 32},
                           {128, 128, 256},
                           {129, 257, 300, 0, 0, 3},
                           {129, 257, 304},
                           {200, 40, 640, 16, 0},
                           {128, 128, 128, 0, 0, 0, true},
                           {1100, 20, 64},
                           {17, 33, 1040, 0, 0, 0, true}};

struct Problem {
  Case c;
  std::vector<int8_t> x, w;
  std::vector<float> x_scales, w_scales, bias;
  int64_t x_stride, w_stride, blocks;

  Problem(const Case& shape, bool blockwise, std::mt19937_64& rng)
      : c(shape), x_stride(c.k + c.x_gap), w_stride(c.k + c.w_gap), blocks((c.k + 127) / 128) {
    const auto codes = [&](int64_t count) {
      std::vector<int8_t> v(static_cast<size_t>(count));
      for (int8_t& q : v) q = c.extremes ? int8_t{-128} : static_cast<int8_t>(rng());
      return v;
    };
    const auto floats = [&](int64_t count) {
      std::vector<float> v(static_cast<size_t>(count));
      for (float& s : v) s = std::uniform_real_distribution<float>(0.5f, 2)(rng) * 1e-2f;
      return v;
    };
    x = codes(c.m * x_stride);
    w = codes(c.n * w_stride);
    x_scales = floats(blockwise ? c.m * blocks : c.m);
    w_scales = floats(blockwise ? (c.n + 127) / 128 * blocks : c.n);
    bias = floats(c.n);
  }

  /// The product, and the bound of gemm_int8.h for its float32 value, in float64 by the definition.
  void expected(bool blockwise, bool with_bias, int64_t m, int64_t n, double& y, double& bound) const {
    double sum = 0, size = 0;
    for (int64_t k = 0; k < c.k; ++k) {
      const double scale = blockwise
                               ? static_cast<double>(x_scales[static_cast<size_t>(m * blocks + k / 128)]) *
                                     static_cast<double>(w_scales[static_cast<size_t>(n / 128 * blocks + k / 128)])
                               : static_cast<double>(x_scales[static_cast<size_t>(m)]) *
                                     static_cast<double>(w_scales[static_cast<size_t>(n)]);
      const double product =
          x[static_cast<size_t>(m * x_stride + k)] * w[static_cast<size_t>(n * w_stride + k)] * scale;
      sum += product;
      size += std::abs(product);
    }
    y = sum + (with_bias ? static_cast<double>(bias[static_cast<size_t>(n)]) : 0);
    bound = ((blockwise ? static_cast<double>(blocks) + 2 : 3) * size + std::abs(y)) * kUnit * 1.01;
  }
};

double half_step(DType to, double y) {
  const int mantissa = to == DType::f32 ? 24 : to == DType::bf16 ? 8 : 11;
  return std::max(std::abs(y) * std::ldexp(1.0, -mantissa), to == DType::f16 ? 0x1p-25 : 0.0);
}

template <class B>
std::vector<double> product(const Problem& p, bool blockwise, bool with_bias, DType to) {
  const int64_t y_stride = p.c.n + p.c.x_gap;
  typename B::Memory x(p.x, p.c.offset), w(p.w, p.c.offset), x_scales(p.x_scales), w_scales(p.w_scales), bias(p.bias);
  const std::vector<uint8_t> blank(static_cast<size_t>(p.c.m * y_stride * bytes_of(to)), 0x77);
  typename B::Memory y(blank, p.c.offset * static_cast<size_t>(bytes_of(to)));
  const Int8Gemm gemm{.m = p.c.m,
                      .n = p.c.n,
                      .k = p.c.k,
                      .x = x.template as<int8_t>(),
                      .w = w.template as<int8_t>(),
                      .x_stride = p.x_stride,
                      .w_stride = p.w_stride,
                      .bias = with_bias ? bias.template as<float>() : nullptr,
                      .y = y.template as<void>(),
                      .to = to,
                      .y_stride = y_stride};
  if (blockwise) {
    B::gemm_int8_blockwise(gemm, x_scales.template as<float>(), w_scales.template as<float>());
  } else {
    B::gemm_int8_rowwise(gemm, x_scales.template as<float>(), w_scales.template as<float>(), p.c.n);
  }
  const auto bytes = y.read();
  std::vector<double> out;
  for (int64_t m = 0; m < p.c.m; ++m)
    for (int64_t n = 0; n < y_stride; ++n) {
      const auto* at = bytes.data() + (m * y_stride + n) * bytes_of(to);
      if (n >= p.c.n) {
        for (int64_t i = 0; i < bytes_of(to); ++i) EXPECT_EQ(at[i], 0x77);  // gaps between rows stay
        continue;
      }
      uint32_t code = 0;
      std::memcpy(&code, at, static_cast<size_t>(bytes_of(to)));
      out.push_back(static_cast<double>(to == DType::f32    ? std::bit_cast<float>(code)
                                        : to == DType::bf16 ? Bf16::decode(code)
                                                            : Fp16::decode(code)));
    }
  return out;
}

/// Elements further away than the bound, where the operands are exact or one code of x is one step off.
template <class B>
size_t outside(const Case& c, bool blockwise, bool with_bias, DType to, std::mt19937_64& rng, int change = 0) {
  Problem p(c, blockwise, rng);
  const Problem truth = p;
  for (int64_t m = 0; m < c.m && change != 0; ++m) p.x[static_cast<size_t>(m * p.x_stride)] ^= 1;
  const auto y = product<B>(p, blockwise, with_bias, to);
  size_t bad = 0;
  for (int64_t m = 0; m < c.m; ++m)
    for (int64_t n = 0; n < c.n; ++n) {
      double expected = 0, bound = 0;
      truth.expected(blockwise, with_bias, m, n, expected, bound);
      const double error = std::abs(y[static_cast<size_t>(m * c.n + n)] - expected);
      bad += error <= bound + half_step(to, std::abs(expected) + bound) ? 0 : 1;
    }
  return bad;
}

TYPED_TEST(CudaGemmInt8, BlockwiseKeepsItsBound) {
  auto rng = test_rng();
  for (const Case& c : kCases)
    for (const DType to : {DType::f32, DType::bf16, DType::f16}) {
      if (to == DType::f16 && c.extremes) continue;  // beyond its range
      ASSERT_EQ(outside<TypeParam>(c, true, to != DType::f32, to, rng), 0u) << c.m << " " << c.n << " " << c.k;
    }
}

TYPED_TEST(CudaGemmInt8, RowwiseKeepsItsBound) {
  auto rng = test_rng();
  for (const Case& c : kCases)
    for (const DType to : {DType::f32, DType::bf16})
      ASSERT_EQ(outside<TypeParam>(c, false, to == DType::f32, to, rng), 0u) << c.m << " " << c.n << " " << c.k;
}

TYPED_TEST(CudaGemmInt8, TheBoundSeesOneWrongCodeInEveryRow) {
  auto rng = test_rng();
  for (const bool blockwise : {true, false})
    EXPECT_GT(outside<TypeParam>({40, 200, 256}, blockwise, false, DType::f32, rng, 1), 40u * 200 * 9 / 10);
}

TYPED_TEST(CudaGemmInt8, OneScaleForTheWholeWeight) {
  auto rng = test_rng();
  Problem p({20, 140, 96}, false, rng);
  p.w_scales.assign(p.w_scales.size(), p.w_scales[0]);
  const auto each = product<TypeParam>(p, false, true, DType::f32);
  typename TypeParam::Memory x(p.x), w(p.w), xs(p.x_scales), ws(std::vector<float>{p.w_scales[0]}), bias(p.bias);
  typename TypeParam::Memory y(20 * 140 * sizeof(float));
  TypeParam::gemm_int8_rowwise(Int8Gemm{.m = 20,
                                        .n = 140,
                                        .k = 96,
                                        .x = x.template as<int8_t>(),
                                        .w = w.template as<int8_t>(),
                                        .x_stride = 96,
                                        .w_stride = 96,
                                        .bias = bias.template as<float>(),
                                        .y = y.template as<void>(),
                                        .to = DType::f32,
                                        .y_stride = 140},
                               xs.template as<float>(), ws.template as<float>(), int64_t{1});
  const auto one = y.template read<float>();
  EXPECT_TRUE(std::equal(one.begin(), one.end(), each.begin(), each.end()));
}

// g * W, the gradient of a block-wise linear layer's input: the product with the transposed weight.
TYPED_TEST(CudaGemmInt8, TransposedWeightsGiveTheTransposedProduct) {
  auto rng = test_rng();
  const int64_t n = 384, k = 256;
  Problem p({40, k, n}, true, rng);                        // x is g [40, n], w is W^T [k, n]
  std::vector<int8_t> weight(static_cast<size_t>(n * k));  // W [n, k]
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < k; ++c) weight[static_cast<size_t>(r * k + c)] = p.w[static_cast<size_t>(c * n + r)];
  std::vector<float> scales(p.w_scales.size());  // [n / 128, k / 128]
  for (int64_t r = 0; r < n / 128; ++r)
    for (int64_t c = 0; c < k / 128; ++c)
      scales[static_cast<size_t>(r * (k / 128) + c)] = p.w_scales[static_cast<size_t>(c * (n / 128) + r)];
  typename TypeParam::Memory from(weight), to(weight.size()), scales_from(scales), scales_to(scales.size() * 4);
  TypeParam::transpose_codes(from.template as<void>(), n, k, k, to.template as<void>(), n);
  TypeParam::transpose_floats(scales_from.template as<float>(), n / 128, k / 128, scales_to.template as<float>());
  EXPECT_EQ(to.template read<int8_t>(), p.w);
  EXPECT_EQ(scales_to.template read<float>(), p.w_scales);
}

TYPED_TEST(CudaGemmInt8, TransposesWhatNoTileDivides) {
  auto rng = test_rng();
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {65, 63}, {3, 200}, {130, 1}}) {
    std::vector<uint8_t> x(static_cast<size_t>(rows * (cols + 3)));
    for (uint8_t& q : x) q = static_cast<uint8_t>(rng());
    typename TypeParam::Memory from(x, 1), to(static_cast<size_t>(cols * (rows + 2)), 3);
    const auto before = to.read();
    TypeParam::transpose_codes(from.template as<void>(), rows, cols, cols + 3, to.template as<void>(), rows + 2);
    const auto after = to.read();
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = 0; r < rows + 2; ++r)
        ASSERT_EQ(
            after[static_cast<size_t>(c * (rows + 2) + r)],
            r < rows ? x[static_cast<size_t>(r * (cols + 3) + c)] : before[static_cast<size_t>(c * (rows + 2) + r)]);
  }
}

}  // namespace
}  // namespace mezzotint::kernel::cuda::test
