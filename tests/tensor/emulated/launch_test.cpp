#include "mezzotint/tensor/cuda/launch.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include "mezzotint/base/error.h"
#include "mezzotint/tensor/cuda/product.h"
#include "tensor/tensor_case.h"

// Our kernels as tier 2 calls them, on the emulator of a GPU: tensors lie in the host's memory.
namespace mezzotint::tensor::cuda {
namespace {

using test::relative;
using test::some_weight;
using test::stored_formats;

const Gpu kGpu{.capability = 90, .runtime = 12080, .kernels = true};

std::vector<std::string> layouts() {
  std::vector<std::string> all = stored_formats();
  for (const char* label :
       {"int8_row", "int8_convrot", "int8_blockwise:geometry=row_group", "float8_e4m3fn_blockwise:block_size=64",
        "convrot_w4a4:linear_dtype=int8", "asym_w4a8_int8:codes=uniform"})
    all.emplace_back(label);
  return all;
}

TEST(EmulatedLaunch, TheEmulatorIsThere) {
  ASSERT_TRUE(kernel::cuda::built());
  EXPECT_EQ(kernel::cuda::devices()[0].name, "emulator");
}

TEST(EmulatedLaunch, WeightsDecodeToTheSameBits) {
  size_t decoded = 0;
  for (const std::string& format : layouts())
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{128, 256}, {70, 100}}) {
      SCOPED_TRACE(format + ", " + std::to_string(rows) + " x " + std::to_string(cols));
      StoredWeight weight;
      try {
        weight = quantize(some_weight(rows, cols), format);
      } catch (const Error&) {
        continue;
      }
      const std::optional<Operand> operand = operand_of(weight, 0);
      if (!operand) continue;
      for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const std::optional<at::Tensor> values = launch::decode(*operand, type);
        if (!values) continue;
        ++decoded;
        EXPECT_TRUE(values->equal(dequantize(weight, type))) << c10::toString(type);
      }
    }
  EXPECT_GE(decoded, 3 * 14u);
}

bool same(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.contiguous().view(at::kByte).equal(b.contiguous().view(at::kByte));
}

TEST(EmulatedLaunch, ActivationsGetTheSameBytes) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{19, 256}, {3, 200}, {1, 32}}) {
      at::Tensor x = some_weight(rows, cols, type, 3) * 50;
      x[rows / 2].zero_();
      for (const std::optional<float> given : {std::optional<float>(), std::optional<float>(0.01f)}) {
        SCOPED_TRACE(std::string(c10::toString(type)) + (given ? ", given" : ""));
        const auto rows_of = [&, m = rows](const Activations& q) { return q.row_scale.expand({m, 1}); };
        const Activations i = launch::quantize_int8(x, given), i2 = quantize_int8(x, given);
        EXPECT_TRUE(same(i.codes, i2.codes));
        EXPECT_TRUE(same(rows_of(i), rows_of(i2)));
        const Activations f = launch::quantize_e4m3(x, given), f2 = quantize_e4m3(x, given);
        EXPECT_TRUE(same(f.codes, f2.codes));
        EXPECT_TRUE(same(rows_of(f), rows_of(f2)));
      }
      const Activations b = launch::quantize_int8_blocks(x), b2 = quantize_int8_blocks(x);
      EXPECT_TRUE(same(b.codes, b2.codes));
      EXPECT_TRUE(same(b.block_scales, b2.block_scales));
      const Activations m = launch::quantize_mx(x), m2 = quantize_mx(x);
      EXPECT_TRUE(same(m.codes, m2.codes));
      EXPECT_TRUE(same(m.block_scales, m2.block_scales));
    }
  const at::Tensor x = some_weight(7, 512, at::kFloat, 3);
  EXPECT_TRUE(launch::rotated(x, 256, at::kFloat).equal(rotated(x, 256)));
}

TEST(EmulatedLaunch, ProductsAreTheCpus) {
  std::map<Product, size_t> ran;
  const at::Tensor bias = some_weight(1, 256, at::kFloat, 6).view({256});
  for (const std::string& format : layouts())
    for (const int64_t m : {3, 33}) {
      const at::Tensor q = from_float(some_weight(256, 512, at::kFloat), format);
      const StoredWeight& weight = *quantized(q).stored();
      const std::optional<Operand> operand = operand_of(weight, 0);
      if (!operand) continue;
      const Product product = choose_product(operand->form, {m, 256, 512, at::kFloat, Side::forward}, {}, kGpu).product;
      if (product == Product::scaled_mm_mx || product == Product::scaled_mm_fp4) continue;  // not on the CPU
      if (product == Product::dequantize && operand->form.input != formats::InputCodes::none) continue;
      SCOPED_TRACE(format + ", M = " + std::to_string(m) + ", " + std::string(name(product)));
      ++ran[product];
      const at::Tensor x = some_weight(m, 512, at::kFloat, 3) * 50, expected = at::linear(x, q, bias);
      const at::Tensor y = multiply_rows(x, weight, 0, Side::forward, {}, bias, at::kFloat, product, kGpu);
      EXPECT_LT(relative(y, expected), 1e-5);
      EXPECT_GT(relative(y, expected * 1.25), 0.1) << "negative control";
      const at::Tensor short_y = multiply_rows(x, weight, 0, Side::forward, {}, bias, at::kBFloat16, product, kGpu);
      EXPECT_LT(relative(short_y, expected), 0x1p-8);
    }
  EXPECT_GE(ran[Product::int8_rows], 4u);
  EXPECT_GE(ran[Product::int8_blocks], 2u);
  EXPECT_GE(ran[Product::int_mm], 4u);
  EXPECT_GE(ran[Product::scaled_mm], 2u);
}

TEST(EmulatedLaunch, SizesThatDivideByNothing) {
  const at::Tensor q = from_float(some_weight(45, 100, at::kFloat), "int8_row"),
                   x = some_weight(21, 100, at::kFloat, 3);
  const StoredWeight& weight = *quantized(q).stored();
  const Call call{21, 45, 100, at::kFloat, Side::forward};
  ASSERT_EQ(choose_product(operand_of(weight, 0)->form, call, {}, kGpu).product, Product::int8_rows);
  EXPECT_LT(relative(multiply_rows(x, weight, 0, Side::forward, {}, {}, at::kFloat, Product::int8_rows, kGpu),
                     at::linear(x, q)),
            1e-5);
}

}  // namespace
}  // namespace mezzotint::tensor::cuda
