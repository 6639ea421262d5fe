#include <gmock/gmock.h>
#include <torch/types.h>

#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "tensor/tensor_case.h"

// Products with codes against float64 products with the same decoded operands.
namespace mezzotint::tensor {
namespace {

using test::relative;
using test::some_weight;
using test::stored_formats;

at::Tensor full_precision(const at::Tensor& q) {
  ProductOptions options{.full_precision_matrix_mult = true};
  return make_tensor(quantized(q).stored(), q.scalar_type(), quantized(q).transposed(),
                     std::make_shared<const ProductOptions>(std::move(options)));
}

struct Case {
  std::string operation;
  std::function<at::Tensor(const at::Tensor& x, const at::Tensor& w)> run;  // x [M, 512], w [256, 512]
};
const std::vector<Case> kCases = {
    {"linear", [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w); }},
    {"linear, bias",
     [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w, at::ones({256}, x.options())); }},
    {"linear, 3-D", [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x.unsqueeze(0), w); }},
    {"linear, 1-D", [](const at::Tensor& x, const at::Tensor& w) { return at::linear(x[0], w); }},
    {"mm", [](const at::Tensor& x, const at::Tensor& w) { return at::mm(x, w.t()); }},
    {"mm, weight first", [](const at::Tensor& x, const at::Tensor& w) { return at::mm(w, x.t()); }},
    {"mm, as stored", [](const at::Tensor& x, const at::Tensor& w) { return at::mm(at::linear(x, w) * 0 + 1, w); }},
    {"matmul",
     [](const at::Tensor& x, const at::Tensor& w) {
       return at::matmul(x.view({2, -1, 512}), w.t());
     }},
    {"addmm", [](const at::Tensor& x,
                 const at::Tensor& w) { return at::addmm(at::ones({256}, x.options()), x, w.t(), 0.5, 2); }},
};

TEST(Products, OfCodesAreThoseOfDecodedValues) {
  for (const std::string& format : stored_formats())
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const auto& [name, run] : kCases) {
        SCOPED_TRACE(format + ", " + name + ", " + c10::toString(type));
        const at::Tensor q = full_precision(from_float(some_weight(), format));
        const at::Tensor x = some_weight(16, 512, type, 3) * 50;
        DispatchScope scope(DispatchScope::Fallback::error);
        const at::Tensor y = run(x, q);
        EXPECT_EQ(y.scalar_type(), type);
        const at::Tensor expected = run(x.to(at::kDouble), dequantized(q, at::kFloat).to(at::kDouble));
        ASSERT_EQ(y.sizes(), expected.sizes());
        const double bound = type == at::kFloat ? 1e-5 : type == at::kHalf ? 1e-3 : 4e-3;
        EXPECT_LT(relative(y, expected), bound);
        const at::Tensor broken = run(x.to(at::kDouble), dequantized(q, at::kFloat).to(at::kDouble) * 1.25);
        EXPECT_GT(relative(y, broken), 10 * bound) << "negative control: a scale that is off by a quarter";
      }
}

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

TEST(Products, EmptyBatchesAndOddSizes) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor q = full_precision(from_float(some_weight(), format));
    EXPECT_EQ(at::linear(at::empty({0, 512}), q).sizes(), at::IntArrayRef({0, 256}));
    EXPECT_EQ(at::linear(at::empty({3, 0, 512}), q).sizes(), at::IntArrayRef({3, 0, 256}));
    const at::Tensor x = some_weight(7, 512, at::kFloat, 5);
    EXPECT_LT(relative(at::linear(x.view({7, 1, 1, 512}), q).view({7, 256}),
                       x.to(at::kDouble).matmul(dequantized(q, at::kFloat).to(at::kDouble).t())),
              1e-5);
    EXPECT_THROW(at::linear(at::empty({2, 511}), q), c10::Error);
  }
}

}  // namespace
}  // namespace mezzotint::tensor
