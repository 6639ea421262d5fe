#include <gmock/gmock.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include "mezzotint/base/error.h"
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

TEST(Products, OfABankOfExperts) {
  size_t banks = 0;
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    at::Tensor q;
    try {
      q = full_precision(from_float(at::stack({some_weight(), some_weight(256, 512, at::kBFloat16, 2)}), format));
    } catch (const Error& error) {
      EXPECT_STREQ(error.name().data(), "shape-refused");
      continue;
    }
    ++banks;
    const at::Tensor x = some_weight(14, 512, at::kFloat, 3).view({2, 7, 512}) * 50,
                     values = dequantized(q, at::kFloat);
    DispatchScope scope(DispatchScope::Fallback::error);
    EXPECT_LT(
        relative(at::bmm(x, q.transpose(1, 2)), at::bmm(x.to(at::kDouble), values.to(at::kDouble).transpose(1, 2))),
        1e-5);
    EXPECT_LT(relative(at::matmul(x, q.mT()), at::bmm(x.to(at::kDouble), values.to(at::kDouble).transpose(1, 2))),
              1e-5);
    EXPECT_GT(relative(at::bmm(x, q.transpose(1, 2)),
                       at::bmm(x.to(at::kDouble), values.to(at::kDouble).flip(0).transpose(1, 2))),
              0.5)
        << "negative control: the experts exchanged";
  }
  EXPECT_GE(banks, 4u);
}

TEST(Products, ConvolutionsOfCodes) {
  const auto weight = [](std::vector<int64_t> kernel) {
    std::vector<int64_t> shape = {256, 512};
    int64_t positions = 1;
    for (const int64_t size : kernel) positions *= size;
    shape[1] /= 8;
    shape.insert(shape.end(), kernel.begin(), kernel.end());
    return some_weight(256, 64 * positions, at::kFloat).view(shape);
  };
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor flat = full_precision(from_float(weight({2, 4}), format)),
                     deep = full_precision(from_float(weight({1, 2, 2}), format));
    EXPECT_EQ(flat.sizes(), at::IntArrayRef({256, 64, 2, 4}));
    const at::Tensor x2 = some_weight(2 * 64, 9 * 10, at::kFloat, 3).view({2, 64, 9, 10}).requires_grad_(),
                     x3 = some_weight(2 * 64, 3 * 6 * 8, at::kFloat, 4).view({2, 64, 3, 6, 8});
    const at::Tensor bias = some_weight(1, 256, at::kFloat, 5).view({256});
    const auto exact = [](const at::Tensor& t) { return dequantized(t, at::kFloat).to(at::kDouble); };
    DispatchScope scope(DispatchScope::Fallback::error);
    const at::Tensor y = at::conv2d(x2, flat, bias, {2, 1}, {1, 2}, {1, 2}),
                     expected =
                         at::conv2d(x2.to(at::kDouble), exact(flat), bias.to(at::kDouble), {2, 1}, {1, 2}, {1, 2});
    ASSERT_EQ(y.sizes(), expected.sizes());
    EXPECT_LT(relative(y, expected), 1e-5);
    EXPECT_LT(relative(at::conv3d(x3, deep, bias, {1, 2, 2}),
                       at::conv3d(x3.to(at::kDouble), exact(deep), bias.to(at::kDouble), {1, 2, 2})),
              1e-5);
    EXPECT_LT(relative(at::conv2d(x2[0], flat), at::conv2d(x2[0].to(at::kDouble), exact(flat))), 1e-5);
    const at::Tensor g = at::ones_like(y), got = torch::autograd::grad({y}, {x2}, {g})[0],
                     wanted = torch::autograd::grad({expected}, {x2}, {g.to(at::kDouble)})[0];
    EXPECT_LT(relative(got, wanted), 1e-5);
  }
}

TEST(Products, ATableGathersRows) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor q = from_float(some_weight(), format), rows = torch::tensor({{3, 255, 3}, {0, 128, 17}});
    DispatchScope scope(DispatchScope::Fallback::error);
    const at::Tensor got = at::embedding(q, rows);
    EXPECT_EQ(got.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(got.equal(at::embedding(dequantized(q, at::kFloat), rows).to(at::kBFloat16)));
    EXPECT_THROW(at::embedding(q, torch::tensor({256})), c10::Error);
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

}  // namespace
}  // namespace mezzotint::tensor
