#include <gmock/gmock.h>
#include <torch/types.h>

#include <cstring>

#include "mezzotint/base/error.h"
#include "mezzotint/formats/matmul_inputs.h"
#include "mezzotint/kernel/gemm/quantize_rows.h"
#include "mezzotint/kernel/hadamard.h"
#include "mezzotint/tensor/cuda/activations.h"
#include "mezzotint/tensor/cuda/launch.h"
#include "mezzotint/tensor/cuda/operand.h"
#include "mezzotint/tensor/cuda/product.h"
#include "tensor/tensor_case.h"

// What a GPU computes by operations of ATen, computed by the same operations on the CPU.
namespace mezzotint::tensor::cuda {
namespace {

using test::relative;
using test::some_weight;
using test::stored_formats;

/// Formats, and those of their options that change what products see.
std::vector<std::string> layouts() {
  std::vector<std::string> all = stored_formats();
  for (const char* label :
       {"int8_row", "int8_convrot", "int8_blockwise:block_size=64", "int8_blockwise:geometry=row_group",
        "float8_e4m3fn_blockwise:block_size=64", "convrot_w4a4:linear_dtype=int8", "asym_w4a8_int8:codes=uniform",
        "asym_w4a8_int8:codes=asymmetric", "asym_w4a8_int8:codes=six_bit"})
    all.emplace_back(label);
  return all;
}

/// Values of every size, with rows and blocks of zeros.
at::Tensor awkward(int64_t rows, int64_t cols, at::ScalarType type, uint64_t seed) {
  at::Tensor x = some_weight(rows, cols, at::kFloat, seed);
  x.mul_(at::pow(10.0, at::arange(rows).remainder(9).sub(4)).unsqueeze(1));
  x[rows / 2].zero_();
  x.narrow(1, 0, std::min<int64_t>(40, cols)).select(0, 0).zero_();
  x[rows - 1][cols - 1] = 3e4f;
  return x.to(type);
}

bool same_bytes(const at::Tensor& a, const void* b) {
  const at::Tensor packed = a.contiguous();
  return std::memcmp(packed.const_data_ptr(), b, packed.nbytes()) == 0;
}

TEST(CudaPaths, WeightsDecodeToTheCpusBits) {
  size_t read = 0;
  for (const std::string& format : layouts())
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{256, 512}, {128, 256}, {70, 100}, {33, 17}, {1, 1}}) {
      SCOPED_TRACE(format + ", " + std::to_string(rows) + " x " + std::to_string(cols));
      StoredWeight weight;
      try {
        weight = quantize(awkward(rows, cols, at::kFloat, 1), format);
      } catch (const Error& error) {
        EXPECT_EQ(error.name(), "shape-refused");
        continue;
      }
      const std::optional<Operand> operand = operand_of(weight, 0);
      if (!operand) continue;
      ++read;
      for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const at::Tensor expected = dequantize(weight, type), got = decode(*operand, type);
        ASSERT_EQ(got.scalar_type(), type);
        EXPECT_TRUE(got.equal(expected)) << c10::toString(type) << ", off by " << relative(got, expected);
        const at::Tensor some = at::arange(2 * rows + 1).remainder(rows).flip(0);
        EXPECT_TRUE(decode_rows(*operand, some, type).equal(expected.index_select(0, some)));
      }
    }
  EXPECT_GT(read, 40u);
}

TEST(CudaPaths, ExpertsOfABankAreFoundWhereTheyLie) {
  size_t banks = 0;
  for (const std::string& format : layouts()) {
    SCOPED_TRACE(format);
    StoredWeight weight;
    try {
      weight = quantize(at::stack({some_weight(), some_weight(256, 512, at::kBFloat16, 2)}), format);
    } catch (const Error&) {
      continue;
    }
    if (!operand_of(weight, 0)) continue;
    ++banks;
    const at::Tensor expected = dequantize(weight, at::kFloat);
    EXPECT_FALSE(expected[0].equal(expected[1]));
    for (int64_t expert : {0, 1}) EXPECT_TRUE(decode(*operand_of(weight, expert), at::kFloat).equal(expected[expert]));
    EXPECT_TRUE(decode_all(weight, at::kFloat).view({2, 256, 512}).equal(expected));
  }
  EXPECT_GE(banks, 6u);
}

TEST(CudaPaths, RotationHasTheCpusBits) {
  for (const int64_t group : {4, 16, 64, 256, 1024}) {
    const at::Tensor x = some_weight(5, 1024, at::kFloat, 3);
    at::Tensor expected = x.clone();
    kernel::rotate_convrot(expected.mutable_data_ptr<float>(), expected.numel(), group);
    EXPECT_TRUE(rotated(x, group).equal(expected)) << group;
    EXPECT_FALSE(x.equal(expected));
    // In bfloat16: the matrix is exact, the result is rounded once (and sums in float32).
    const at::Tensor half = x.to(at::kBFloat16), exact = rotated(half.to(at::kFloat), group);
    const at::Tensor error = rotated(half, group).to(at::kFloat).sub(exact).abs();
    const at::Tensor size = half.to(at::kFloat).abs().view({-1, group}).sum(1, true).div(std::sqrt(double(group)));
    EXPECT_TRUE(error
                    .le(exact.abs().mul(0x1p-8).mul(1.01).add(
                        size.mul(2 * double(group) * 0x1p-24).expand({-1, group}).reshape({5, 1024})))
                    .all()
                    .item<bool>());
  }
}

TEST(CudaPaths, SwizzledScalesLieWhereFilesHaveThem) {
  const at::Tensor scales = at::arange(200 * 7).remainder(251).to(at::kByte).view({200, 7});
  const at::Tensor buffer = swizzled(scales);
  EXPECT_EQ(buffer.numel(), 256 * 8);
  EXPECT_TRUE(unswizzled(buffer, 200, 7).equal(scales));
  const auto* bytes = buffer.const_data_ptr<uint8_t>();
  for (int64_t r = 0; r < 200; ++r)
    for (int64_t c = 0; c < 7; ++c)  // formats.md 3.4
      ASSERT_EQ(bytes[(r / 128 * 2 + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4], (r * 7 + c) % 251);
}

class ActivationsTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{19, 256}, {7, 200}, {3, 33}, {1, 1}})
      inputs_.push_back(awkward(rows, cols, GetParam(), 7));
    // No scale may depend on what is not a number or not finite.
    at::Tensor wild = awkward(5, 64, at::kFloat, 8);
    wild[1][3] = std::numeric_limits<float>::infinity();
    wild[2][5] = -std::numeric_limits<float>::infinity();
    inputs_.push_back(wild.to(GetParam()));
  }

  static kernel::Source source_of(const at::Tensor& x) {
    return {x.const_data_ptr(), dtype_of(x.scalar_type()), x.size(0), x.size(1), x.size(1)};
  }

  /// The CPU's codes for the floating kinds.
  struct Cpu {
    std::vector<std::byte> memory;
    formats::QuantizedInput input;
  };
  static Cpu on_cpu(const at::Tensor& x, formats::InputCodes kind, std::optional<float> given) {
    Cpu cpu;
    cpu.memory.resize(formats::quantized_input_bytes(kind, x.size(0), x.size(1)) + 64);
    kernel::FloatScaling scaling;
    if (given) scaling = {.of = kernel::FloatScaling::Of::given, .scale = *given};
    cpu.input = formats::quantize_input(source_of(x), kind, scaling, cpu.memory, 1);
    return cpu;
  }

  std::vector<at::Tensor> inputs_;
};

at::Tensor per_row(const Activations& q, int64_t rows) {
  return q.row_scale.expand({rows, 1});
}

TEST_P(ActivationsTest, Integers) {
  enum class Kind { rows, blocks, int4 };
  for (const at::Tensor& x : inputs_)
    for (const std::optional<float> given : {std::optional<float>(), std::optional<float>(0.003f)})
      for (const Kind kind : {Kind::rows, Kind::blocks, Kind::int4}) {
        const bool blocks = kind == Kind::blocks;
        if (blocks && given) continue;
        const int64_t m = x.size(0), k = x.size(1), across = blocks ? (k + 127) / 128 : 1;
        std::vector<int8_t> codes(static_cast<size_t>(m * k));
        std::vector<float> scales(static_cast<size_t>(m * across), given.value_or(0));
        std::vector<std::byte> scratch(kernel::quantize_int8_scratch_bytes(m, k, 1));
        kernel::Int8Quantization how{.scaling = blocks ? kernel::Int8Scaling::block : kernel::Int8Scaling::row,
                                     .given_scale = given ? &*given : nullptr};
        if (kind == Kind::int4) how.range = kernel::IntegerRange::int4();
        kernel::quantize_int8(source_of(x), how, {codes.data(), k, scales.data(), across}, scratch, 1);
        const Activations q = blocks               ? quantize_int8_blocks(x)
                              : kind == Kind::int4 ? quantize_int4(x, given)
                                                   : quantize_int8(x, given);
        EXPECT_TRUE(same_bytes(q.codes, codes.data()))
            << x.sizes() << " " << static_cast<int>(kind) << " " << given.has_value();
        EXPECT_TRUE(same_bytes(blocks ? q.block_scales : per_row(q, m), scales.data()));
      }
}

TEST_P(ActivationsTest, E4m3) {
  for (const at::Tensor& x : inputs_)
    for (const std::optional<float> given : {std::optional<float>(), std::optional<float>(0.003f)}) {
      const Cpu fp8 = on_cpu(x, formats::InputCodes::fp8_e4m3, given);
      const Activations q = quantize_e4m3(x, given);
      EXPECT_TRUE(same_bytes(q.codes, fp8.input.codes.data)) << x.sizes();
      EXPECT_TRUE(same_bytes(per_row(q, x.size(0)), fp8.input.row_scale));
    }
}

TEST_P(ActivationsTest, BlockScales) {
  for (const at::Tensor& x : inputs_) {
    const int64_t m = x.size(0), k = x.size(1);
    const Cpu mx = on_cpu(x, formats::InputCodes::mx, {});
    const Activations q = quantize_mx(x);
    EXPECT_EQ(q.codes.sizes(), at::IntArrayRef({m, (k + 31) / 32 * 32}));
    EXPECT_TRUE(same_bytes(q.codes.view(at::kByte).narrow(1, 0, k), mx.input.codes.data)) << x.sizes();
    EXPECT_TRUE(same_bytes(unswizzled(q.block_scales, m, (k + 31) / 32), mx.input.codes.scales.data));
    for (const std::optional<float> given : {std::optional<float>(), std::optional<float>(0.003f)}) {
      const Cpu fp4 = on_cpu(x, formats::InputCodes::fp4, given);
      const Activations four = quantize_fp4(x, given);
      EXPECT_EQ(four.codes.sizes(), at::IntArrayRef({m, (k + 15) / 16 * 8}));
      EXPECT_TRUE(same_bytes(four.codes.narrow(1, 0, (k + 1) / 2), fp4.input.codes.data)) << x.sizes();
      EXPECT_TRUE(same_bytes(unswizzled(four.block_scales, m, (k + 15) / 16), fp4.input.codes.scales.data));
      EXPECT_TRUE(same_bytes(per_row(four, m), fp4.input.row_scale));
    }
    // What at::_scaled_mm checks of them on a GPU.
    EXPECT_EQ(q.block_scales.numel(), (m + 127) / 128 * 128 * (((k + 31) / 32 + 3) / 4 * 4));
    EXPECT_EQ(q.codes.scalar_type(), at::kFloat8_e4m3fn);
    EXPECT_TRUE(q.block_scales.view(at::kFloat8_e8m0fnu).is_contiguous());
    const Activations four = quantize_fp4(x, {});
    EXPECT_EQ(four.codes.view(at::kFloat4_e2m1fn_x2).t().sizes(), at::IntArrayRef({(k + 15) / 16 * 8, m}));
    EXPECT_EQ(four.block_scales.view(at::kFloat8_e4m3fn).numel(),
              (m + 127) / 128 * 128 * (((k + 15) / 16 + 3) / 4 * 4));
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, ActivationsTest, testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& type) { return c10::toString(type.param); });

/// x as codes that `product` multiplies, exact in float64.
at::Tensor seen(const at::Tensor& x, const Operand& operand, const ProductOptions& options, Product product) {
  if (product == Product::dequantize) return x.to(at::kDouble);
  const at::Tensor input = operand.form.rotation != 0 ? rotated(x, operand.form.rotation) : x;
  const Activations q = operand.form.input == formats::InputCodes::int8   ? quantize_int8(input, options.input_scale)
                        : operand.form.input == formats::InputCodes::int4 ? quantize_int4(input, options.input_scale)
                                                                          : quantize_e4m3(input, options.input_scale);
  return q.codes.to(at::kDouble).mul(q.row_scale.to(at::kDouble));
}

/// Which products of ATen the CPU has.
bool is_on_cpu(Product product) {
  return product == Product::int_mm || product == Product::scaled_mm || product == Product::scaled_mm_rows ||
         product == Product::dequantize;
}

TEST(CudaPaths, ProductsStayWithinTheirBounds) {
  std::map<Product, size_t> ran;
  const at::Tensor bias = some_weight(1, 256, at::kFloat, 6).view({256});
  for (const std::string& format : layouts())
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const int64_t m : {1, 16, 33})
        for (const std::optional<float> given : {std::optional<float>(), std::optional<float>(0.02f)})
          for (const int capability : {75, 90}) {
            const StoredWeight weight = quantize(some_weight(), format);
            std::optional<Operand> operand = operand_of(weight, 0);
            if (!operand) continue;
            const ProductOptions options{.input_scale = given};
            const Product product = choose_product(operand->form, {m, 256, 512, type, Side::forward}, options,
                                                   {.capability = capability, .runtime = 12080})
                                        .product;
            if (!is_on_cpu(product)) continue;
            SCOPED_TRACE(format + ", " + c10::toString(type) + ", " + std::string(name(product)) +
                         ", M = " + std::to_string(m) + (given ? ", static" : ""));
            ++ran[product];
            const at::Tensor x = some_weight(m, 512, type, 3) * 50, term = bias.to(type);
            const at::Tensor y = multiply_rows(x, weight, 0, Side::forward, options, term, type, product);
            ASSERT_EQ(y.scalar_type(), type);
            // The codes without their rotation, which x has.
            if (product != Product::dequantize) operand->form.rotation = 0;
            const at::ScalarType as = product == Product::dequantize ? type : at::kFloat;
            const at::Tensor x64 = seen(x, *operand_of(weight, 0), options, product),
                             w64 = decode(*operand, as).to(at::kDouble);
            const at::Tensor exact = x64.mm(w64.t()).add(term.to(at::kDouble)), sum = x64.abs().mm(w64.abs().t());
            // Terms of the sum and 4 factors, the decoded weight's one rounding, the bias, the result's dtype (twice,
            // where the bias comes after at::_scaled_mm).
            const double terms = product == Product::int_mm ? 4 : 512 + 4;
            const double unit = type == at::kFloat ? 0x1p-24 : type == at::kHalf ? 0x1p-11 : 0x1p-8;
            const at::Tensor bound =
                sum.mul((terms + 1) * 0x1p-24).add(exact.abs().mul(0x1p-24 + 2 * unit)).add(1e-7 * unit);
            EXPECT_TRUE(y.to(at::kDouble).sub(exact).abs().le(bound).all().item<bool>())
                << y.to(at::kDouble).sub(exact).abs().div(bound).max().item<double>() << " of the bound";
            const at::Tensor broken = x64.mm(w64.t()).mul(1.25).add(term.to(at::kDouble));
            EXPECT_GT(y.to(at::kDouble).sub(broken).abs().gt(bound).to(at::kDouble).mean().item<double>(), 0.9)
                << "negative control: a scale that is off by a quarter";
          }
  for (const Product product : {Product::int_mm, Product::scaled_mm, Product::scaled_mm_rows, Product::dequantize})
    EXPECT_GE(ran[product], 6u) << name(product);
}

TEST(CudaPaths, ProductsAreTheCpus) {
  size_t compared = 0;
  for (const std::string& format : layouts()) {
    const at::Tensor q = from_float(some_weight(256, 512, at::kFloat), format),
                     x = some_weight(33, 512, at::kFloat, 3) * 50;
    const StoredWeight& weight = *quantized(q).stored();
    const std::optional<Operand> operand = operand_of(weight, 0);
    if (!operand) continue;
    SCOPED_TRACE(format);
    const Call call{33, 256, 512, at::kFloat, Side::forward};
    const Product product = choose_product(operand->form, call, {}, {.capability = 90, .runtime = 12080}).product;
    const at::Tensor expected = at::linear(x, q), g = some_weight(33, 256, at::kFloat, 4);
    // Without a fast product x is not rounded there, but it is here.
    if (product != Product::dequantize || operand->form.input == formats::InputCodes::none) {
      ++compared;
      EXPECT_LT(relative(multiply_rows(x, weight, 0, Side::forward, {}, {}, at::kFloat, product), expected), 1e-5);
    }
    EXPECT_LT(relative(multiply_rows(g, weight, 0, Side::backward, {}, {}, at::kFloat, Product::dequantize),
                       multiply(g, quantized(q), Side::backward)),
              1e-5);
  }
  EXPECT_GE(compared, 8u);
}

TEST(CudaPaths, LargeResultsComeInSlabs) {
  // 2^26 elements wait for their scales at a time: these are a few more.
  const StoredWeight weight = quantize(some_weight(4096, 16), "int8_row");
  const at::Tensor x = some_weight(16384 + 200, 16, at::kBFloat16, 3);
  const auto product = [&](const at::Tensor& part) {
    return multiply_rows(part, weight, 0, Side::forward, {}, {}, at::kBFloat16, Product::int_mm);
  };
  const at::Tensor y = product(x);
  EXPECT_TRUE(y.narrow(0, 16300, 200).equal(product(x.narrow(0, 16300, 200))));
  EXPECT_TRUE(y.narrow(0, 16384 + 190, 10).equal(product(x.narrow(0, 16384 + 190, 10))));
}

TEST(CudaPaths, OurKernelsSayThatTheyAreNotBuilt) {
  if (kernel::cuda::built()) GTEST_SKIP() << "they are";
  const at::Tensor x = some_weight(4, 128);
  EXPECT_THAT([&] { launch::quantize_int8(x, {}); }, testing::Throws<Error>());
}

}  // namespace
}  // namespace mezzotint::tensor::cuda
