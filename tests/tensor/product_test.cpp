#include <gmock/gmock.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include "mezzotint/base/error.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "tensor/operands.h"

// Products with codes against float64 products with the same decoded operands.
namespace mezzotint::tensor {
namespace {

using test::relative;
using test::some_weight;
using test::stored_formats;

TEST(Products, TheInputsGradientComesFromTheCodes) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor q = from_float(some_weight(), format);
    const at::Tensor x = (some_weight(16, 512, at::kFloat, 3) * 50).requires_grad_();
    const at::Tensor bias = at::zeros({256}).requires_grad_(), g = some_weight(16, 256, at::kFloat, 4);
    DispatchScope scope(DispatchScope::Fallback::error);
    at::linear(x, q, bias).backward(g);
    EXPECT_LT(relative(x.grad(), g.to(at::kDouble).matmul(dequantized(q, at::kFloat).to(at::kDouble))), 0.02);
    EXPECT_TRUE(bias.grad().allclose(g.sum(0)));
  }
}

TEST(Products, RefuseOperandsThatDoNotFit) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor q = from_float(some_weight(), format), x = at::ones({2, 512});
    EXPECT_THROW(at::linear(at::ones({2, 511}), q), c10::Error);
    EXPECT_THROW(at::linear(x, q, at::ones({255})), c10::Error);
    EXPECT_THROW(at::mm(x, q), c10::Error);
    EXPECT_THROW(at::mm(x.unsqueeze(0), q.t()), c10::Error) << "mm takes matrices only";
    EXPECT_THROW(at::mv(q, x), c10::Error);
    EXPECT_THROW(at::bmm(x, q.t()), c10::Error);
    EXPECT_THROW(at::addmm(at::ones({7}), x, q.t()), c10::Error);
    EXPECT_THROW(at::embedding(q, torch::tensor({256})), c10::Error);
    EXPECT_THROW(at::embedding(q, torch::tensor({-1})), c10::Error);
  }
}

TEST(Products, SmoothedAndStaticInputsFollowTheFile) {
  const at::Tensor q = from_float(some_weight(256, 512, at::kFloat), "float8_e4m3fn");
  const at::Tensor x = some_weight(16, 512, at::kFloat, 3) * 50, factors = at::rand({512}) + 0.5;
  ProductOptions options{.input_scale = 0.01f, .pre_quant_scale = factors};
  const at::Tensor layer =
      make_tensor(quantized(q).stored(), at::kFloat, false, std::make_shared<const ProductOptions>(options));
  const at::Tensor seen = (x * factors / 0.01).clamp(-448, 448).to(at::kFloat8_e4m3fn).to(at::kDouble) * double{0.01f};
  const at::Tensor expected = at::linear(seen, dequantized(q).to(at::kDouble));
  EXPECT_LT(relative(at::linear(x, layer), expected), 1e-5);
  EXPECT_GT(relative(at::linear(x, q), expected), 0.05) << "negative control: without either";
}

/// ComfyUI's rule for fp8 without input_scale, in scalars: codes of clamp(x, -448, 448).
TEST(Products, InputsWithoutAScaleAsComfyUiRoundsThem) {
  const std::tuple<std::string, at::ScalarType, double> kinds[] = {{"float8_e4m3fn", at::kFloat8_e4m3fn, 448},
                                                                   {"float8_e5m2", at::kFloat8_e5m2, 57344}};
  for (const auto& [format, codes, largest] : kinds)
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      SCOPED_TRACE(format + ", " + c10::toString(type));
      const at::Tensor plain = from_float(some_weight(256, 512, at::kFloat), format);
      const at::Tensor q = test::with_options(plain, {.unscaled_inputs = UnscaledInputs::as_comfyui}),
                       values = dequantized(plain, at::kFloat).to(at::kDouble);
      at::Tensor x = (some_weight(16, 512, at::kFloat, 3) * 50).to(type);
      x[0][0] = largest * 1.1;  // clamped
      x[1][1] = 1e-5;           // vanishes in e4m3
      const at::Tensor seen = x.to(at::kFloat).clamp(-largest, largest).to(codes).to(at::kDouble);
      const test::Exact exact = test::product(seen, values.t(), false);
      EXPECT_LE(test::worst(at::linear(x, q), exact), 1);
      EXPECT_LE(test::worst(at::mm(x, q.t()), exact), 1);
      EXPECT_LE(test::worst(at::linear(x.view({2, 8, 512}), q).view({16, 256}), exact), 1);
      EXPECT_GT(test::worst(at::linear(x, plain), exact), 1) << "negative control: scaled per row";
      // A vector is not rounded.
      const test::Exact vector = test::product(x[3].to(at::kDouble).unsqueeze(0), values.t(), false);
      EXPECT_LE(test::worst(at::linear(x[3], q).unsqueeze(0), vector), 1);
      EXPECT_GT(test::worst(at::linear(x.slice(0, 3, 4), q), vector), 1) << "negative control: a row is";
      // A scale of the file wins, and other formats do not know the rule.
      const auto with_scale = [&](UnscaledInputs rule) {
        return at::linear(x, test::with_options(plain, {.input_scale = 0.01f, .unscaled_inputs = rule}));
      };
      EXPECT_TRUE(with_scale(UnscaledInputs::as_comfyui).equal(with_scale(UnscaledInputs::per_row)));
    }
  const at::Tensor x = some_weight(16, 512, at::kFloat, 3) * 50, q = from_float(some_weight(), "int8_row");
  EXPECT_TRUE(
      at::linear(x, test::with_options(q, {.unscaled_inputs = UnscaledInputs::as_comfyui})).equal(at::linear(x, q)));
}

}  // namespace
}  // namespace mezzotint::tensor
