#include "mezzotint/tensor/activations.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include "mezzotint/base/error.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/tensor/dispatch.h"
#include "tensor/operands.h"

// Block-wise int8 codes: quantized in, quantized out.
namespace mezzotint::tensor {
namespace {

using test::some_weight;

at::Tensor some_activations(std::vector<int64_t> shape, at::ScalarType type = at::kFloat) {
  int64_t rows = 1;
  for (const int64_t size : shape) rows *= size;
  return (some_weight(rows / shape.back(), shape.back(), type, 7) * 100).view(shape);
}

/// code * scale in float64; `scales` gets the scale of every element.
at::Tensor exact_values(const at::Tensor& q, at::Tensor* scales = nullptr) {
  const StoredWeight& stored = *quantized(q).stored();
  const at::Tensor each = stored.tensors[1].to(at::kDouble).flatten(1).repeat_interleave(128, 1);
  if (scales != nullptr) *scales = each.view(q.sizes());
  return (stored.tensors[0].to(at::kDouble) * each).view(q.sizes());
}

TEST(Activations, HaveAScaleFor128ValuesOfARow) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{256}, {5, 128}, {2, 3, 384}, {1, 2, 3, 128}})
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor x = some_activations(shape, type), q = quantize_activations(x);
      EXPECT_TRUE(is_activation(q));
      EXPECT_EQ(q.sizes(), x.sizes());
      EXPECT_EQ(q.scalar_type(), type);
      at::Tensor scales;
      const at::Tensor values = exact_values(q, &scales), off = (values - x.to(at::kDouble)).abs();
      EXPECT_LE((off / scales).max().item<double>(), 0.5 * (1 + 1e-5));
      EXPECT_LT(test::relative(values, x), 0.01);
      EXPECT_GT(test::relative(values * 1.25, x), 0.01) << "negative control";
    }
  EXPECT_THROW(quantize_activations(at::ones({4, 100})), Error);
  EXPECT_THROW(quantize_activations(at::ones({0, 128})), Error);
  EXPECT_FALSE(is_activation(from_float(some_weight(), "int8_blockwise")));
  EXPECT_FALSE(is_activation(some_weight()));
}

TEST(Activations, GeluKeepsThemQuantized) {
  const at::Tensor x = some_activations({3, 7, 384}), q = quantize_activations(x), decoded = exact_values(q);
  for (const char* approximate : {"tanh", "none"}) {
    SCOPED_TRACE(approximate);
    DispatchScope scope(DispatchScope::Fallback::error);
    const at::Tensor y = at::gelu(q, approximate);
    ASSERT_TRUE(is_activation(y));
    EXPECT_EQ(y.sizes(), x.sizes());
    const at::Tensor exact = at::gelu(decoded, approximate);
    at::Tensor scales;
    const at::Tensor got = exact_values(y, &scales);
    // A code's rounding, and what the kernel's functions lose: gelu_erf.h, activation.h.
    const at::Tensor bound = 0.5 * scales * (1 + 1e-5) + decoded.abs() * 1e-6;
    EXPECT_LE(((got - exact).abs() / bound).max().item<double>(), 1);
    const at::Tensor other = at::gelu(decoded, approximate == std::string("tanh") ? "none" : "tanh");
    EXPECT_GT(((got * 1.25 - exact).abs() / bound).max().item<double>(), 1) << "negative control";
    EXPECT_LT(test::relative(got, exact), 0.012);
    EXPECT_LT(test::relative(got, at::gelu(x, approximate)), 0.012);
    EXPECT_GT(test::relative(got * 1.25, at::gelu(x, approximate)), 0.012) << "negative control";
    EXPECT_NE(scope.summary().find("gelu of int8 blocks"), std::string::npos) << scope.summary();
    for (const kernel::IsaFacts& level : kernel::all_isas()) {
      if (!kernel::machine_has(level.isa)) continue;
      const kernel::ScopedIsaCap cap(level.isa);
      EXPECT_TRUE(exact_values(at::gelu(q, approximate)).equal(got)) << level.name;
    }
  }
}

TEST(Activations, GeluWithErfIsNotTheApproximation) {
  // Where the two differ most, by 5e-4: codes of a block that reaches 4 cannot tell, those of this block can.
  const at::Tensor x = at::full({1, 128}, -2.2f), q = quantize_activations(x);
  const double erf = exact_values(at::gelu(q))[0][0].item<double>(),
               tanh = exact_values(at::gelu(q, "tanh"))[0][0].item<double>();
  const at::Tensor v = exact_values(q);
  EXPECT_NEAR(erf, at::gelu(v)[0][0].item<double>(), 1e-6);
  EXPECT_NEAR(tanh, at::gelu(v, "tanh")[0][0].item<double>(), 1e-6);
  EXPECT_GT(std::abs(erf - tanh), 1e-4);
}

TEST(Activations, GeluOfOtherLayoutsFallsBack) {
  for (const std::string& format : test::stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor q = from_float(some_weight(), format);
    DispatchScope scope;
    const at::Tensor y = at::gelu(q, "tanh");
    EXPECT_FALSE(is_quantized(y));
    EXPECT_TRUE(y.equal(at::gelu(dequantized(q), "tanh")));
    EXPECT_EQ(scope.dequantized(), 1u);
  }
}

TEST(Activations, TransposedWeightsExchangeTheirTiles) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{256, 384}, {2, 128, 256}}) {
    const at::Tensor weight = some_activations(shape), q = from_float(weight, "int8_blockwise");
    const DispatchScope scope(DispatchScope::Fallback::error);
    const at::Tensor turned = q.transpose(-2, -1).contiguous();
    ASSERT_TRUE(is_quantized(turned));
    EXPECT_TRUE(turned.is_contiguous());
    EXPECT_FALSE(quantized(turned).transposed());
    EXPECT_EQ(turned.sizes(), weight.transpose(-2, -1).sizes());
    EXPECT_TRUE(dequantized(turned).equal(dequantized(q).transpose(-2, -1))) << "nothing is rounded";
    EXPECT_FALSE(dequantized(test::with_broken_scale(turned)).equal(dequantized(q).transpose(-2, -1)));
    EXPECT_TRUE(q.contiguous().is_same(q));
  }
}

TEST(Activations, TransposedActivationsAreQuantizedAgain) {
  const at::Tensor x = some_activations({256, 384}), q = quantize_activations(x), decoded = exact_values(q);
  const DispatchScope scope(DispatchScope::Fallback::error);
  const at::Tensor turned = q.t().contiguous();
  ASSERT_TRUE(is_activation(turned));
  EXPECT_EQ(turned.sizes(), at::IntArrayRef({384, 256}));
  at::Tensor scales;
  const at::Tensor got = exact_values(turned, &scales), off = (got - decoded.t()).abs();
  EXPECT_LE((off / scales).max().item<double>(), 0.5 * (1 + 1e-5));
  EXPECT_GT(((got * 1.25 - decoded.t()).abs() / scales).max().item<double>(), 0.5 * (1 + 1e-5)) << "negative control";
  EXPECT_LT(test::relative(got, x.t()), 0.012);
  // Rows that would end in part of a block keep their codes and the flag.
  const at::Tensor odd = quantize_activations(some_activations({100, 128})).t();
  EXPECT_TRUE(odd.contiguous().is_same(odd));
}

TEST(Activations, MeetWeightsAsCodes) {
  const at::Tensor weight = some_weight(256, 384, at::kFloat), q = from_float(weight, "int8_blockwise"),
                   bias = some_activations({256});
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const std::vector<int64_t>& shape : {std::vector<int64_t>{384}, {1, 384}, {33, 384}, {2, 5, 384}}) {
      const at::Tensor x = quantize_activations(some_activations(shape, type));
      DispatchScope scope(DispatchScope::Fallback::error);
      const at::Tensor y = at::linear(x, q, bias), off = at::linear(x, test::with_broken_scale(q), bias);
      EXPECT_EQ(y.scalar_type(), type);
      EXPECT_FALSE(is_quantized(y));
      test::Exact exact =
          test::product(exact_values(x).view({-1, 384}), test::stored_values(*quantized(q).stored(), 0).t(), false);
      exact.y = exact.y + bias.to(at::kDouble);
      exact.bound = exact.bound + 4 * test::kEps * (exact.y.abs() + bias.to(at::kDouble).abs());
      EXPECT_LE(test::worst(y.view({-1, 256}), exact), 1);
      EXPECT_GT(test::worst(off.view({-1, 256}), exact), 1) << "negative control";
    }
}

}  // namespace
}  // namespace mezzotint::tensor
