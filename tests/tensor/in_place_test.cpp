#include <gmock/gmock.h>
#include <torch/types.h>

#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "tensor/tensor_case.h"

// What is written into a quantized tensor reaches its codes, or throws. It is never lost.
namespace mezzotint::tensor {
namespace {

using test::same_codes;
using test::some_weight;
using testing::HasSubstr;

const at::Tensor kOther = some_weight(128, 256, at::kFloat, 2);
const at::Tensor kMask = kOther > 0;

struct Write {
  std::string name;
  void (*run)(at::Tensor& t);  ///< on a plain or a quantized [128, 256] of float32
};

const Write kWrites[] = {
    {"add_", [](at::Tensor& t) { t.add_(kOther); }},
    {"add_, scalar", [](at::Tensor& t) { t.add_(0.5); }},
    {"sub_", [](at::Tensor& t) { t.sub_(kOther, 2); }},
    {"mul_", [](at::Tensor& t) { t.mul_(kOther); }},
    {"mul_, scalar", [](at::Tensor& t) { t *= 3; }},
    {"div_", [](at::Tensor& t) { t.div_(4); }},
    {"div_, rounded", [](at::Tensor& t) { t.div_(0.01, "floor"); }},
    {"addcmul_", [](at::Tensor& t) { t.addcmul_(kOther, kOther, 2); }},
    {"addcdiv_", [](at::Tensor& t) { t.addcdiv_(kOther, kOther.abs() + 1); }},
    {"lerp_", [](at::Tensor& t) { t.lerp_(kOther, 0.25); }},
    {"clamp_", [](at::Tensor& t) { t.clamp_(-0.01, 0.01); }},
    {"abs_", [](at::Tensor& t) { t.abs_(); }},
    {"neg_", [](at::Tensor& t) { t.neg_(); }},
    {"relu_", [](at::Tensor& t) { t.relu_(); }},
    {"tanh_", [](at::Tensor& t) { t.tanh_(); }},
    {"pow_", [](at::Tensor& t) { t.pow_(2); }},
    {"fill_", [](at::Tensor& t) { t.fill_(0.25); }},
    {"zero_", [](at::Tensor& t) { t.zero_(); }},
    {"copy_", [](at::Tensor& t) { t.copy_(kOther); }},
    {"copy_, broadcast", [](at::Tensor& t) { t.copy_(kOther[0]); }},
    {"masked_fill_", [](at::Tensor& t) { t.masked_fill_(kMask, 0.0); }},
    {"masked_scatter_", [](at::Tensor& t) { t.masked_scatter_(kMask, kOther); }},
    {"index_put_",
     [](at::Tensor& t) {
       t.index_put_({torch::tensor({3, 7})}, kOther.slice(0, 0, 2));
     }},
    {"index_put_, accumulate",
     [](at::Tensor& t) {
       t.index_put_({torch::tensor({3, 3})}, kOther.slice(0, 0, 2), true);
     }},
    {"index_fill_", [](at::Tensor& t) { t.index_fill_(0, torch::tensor({5}), 0.125); }},
    {"index_add_", [](at::Tensor& t) { t.index_add_(0, torch::tensor({5}), kOther.slice(0, 0, 1)); }},
    {"index_copy_", [](at::Tensor& t) { t.index_copy_(0, torch::tensor({5}), kOther.slice(0, 0, 1)); }},
    {"scatter_",
     [](at::Tensor& t) {
       t.scatter_(0, at::zeros({1, 256}, at::kLong), kOther);
     }},
    {"scatter_add_",
     [](at::Tensor& t) {
       t.scatter_add_(0, at::ones({1, 256}, at::kLong), kOther);
     }},
    {"put_",
     [](at::Tensor& t) {
       t.put_(torch::tensor({1, 2}), torch::tensor({1.0f, 2.0f}));
     }},
    {"fill_diagonal_", [](at::Tensor& t) { t.fill_diagonal_(1); }},
    {"tril_", [](at::Tensor& t) { t.tril_(); }},
    {"addmm_", [](at::Tensor& t) { t.addmm_(kOther, at::eye(256), 0.5, 2); }},
    {"_foreach_add_", [](at::Tensor& t) { at::_foreach_add_({t}, 0.5); }},
    {"_foreach_mul_, a list", [](at::Tensor& t) { at::_foreach_mul_({t}, at::TensorList({kOther})); }},
    {"_foreach_copy_", [](at::Tensor& t) { at::_foreach_copy_({t}, {kOther}); }},
    {"_foreach_zero_", [](at::Tensor& t) { at::_foreach_zero_({t}); }},
    {"add, out=", [](at::Tensor& t) { at::add_out(t, kOther, kOther); }},
    {"mul, out= an operand", [](at::Tensor& t) { at::mul_out(t, t, kOther); }},
    {"mm, out=", [](at::Tensor& t) { at::mm_out(t, kOther, at::eye(256)); }},
    {"addmm, out=", [](at::Tensor& t) { at::addmm_out(t, kOther, kOther, at::eye(256)); }},
    {"cat, out=",
     [](at::Tensor& t) {
       at::cat_out(t, {kOther.slice(0, 0, 100), kOther.slice(0, 100)});
     }},
    {"detach, then add_", [](at::Tensor& t) { t.detach().add_(kOther); }},
    {"data, then mul_", [](at::Tensor& t) { t.data().mul_(2); }},
    {"t, then add_", [](at::Tensor& t) { t.t().add_(kOther.t()); }},
    {"transpose, then copy_", [](at::Tensor& t) { t.transpose(0, 1).copy_(kOther.t()); }},
    {"view, then neg_",
     [](at::Tensor& t) {
       t.view({-1, 256}).neg_();
     }},
    {"alias, then fill_", [](at::Tensor& t) { t.alias().fill_(2); }},
    {"t, twice, then add_", [](at::Tensor& t) { t.t().t().add_(1); }},
};

/// A view of the values, which is a copy.
struct View {
  std::string name;
  at::Tensor (*of)(const at::Tensor& t);
};
const View kViews[] = {
    {"[0]", [](const at::Tensor& t) { return t[0]; }},
    {"select", [](const at::Tensor& t) { return t.select(1, 4); }},
    {"slice", [](const at::Tensor& t) { return t.slice(0, 2, 5); }},
    {"narrow", [](const at::Tensor& t) { return t.narrow(1, 0, 4); }},
    {"unsqueeze", [](const at::Tensor& t) { return t.unsqueeze(0); }},
    {"chunk", [](const at::Tensor& t) { return t.chunk(2)[1]; }},
    {"split", [](const at::Tensor& t) { return t.split(64)[1]; }},
    {"unbind", [](const at::Tensor& t) { return t.unbind()[1]; }},
    {"diagonal", [](const at::Tensor& t) { return t.diagonal(); }},
    {"permute",
     [](const at::Tensor& t) {
       return t.unsqueeze(0).permute({2, 0, 1});
     }},
    {"expand",
     [](const at::Tensor& t) {
       return t.expand({1, 128, 256});
     }},
    {"flatten", [](const at::Tensor& t) { return t.flatten(); }},
    {"reshape",
     [](const at::Tensor& t) {
       return t.reshape({256, 128});
     }},
    {"as_strided", [](const at::Tensor& t) { return t.slice(0, 1).as_strided({4}, {2}); }},
    {"a view of a view", [](const at::Tensor& t) { return t[0].slice(0, 3, 9).unsqueeze(1); }},
    {"index", [](const at::Tensor& t) { return t.index({torch::indexing::Slice(1, 3)}); }},
    {"detached", [](const at::Tensor& t) { return t[0].detach(); }},
    {"unfold", [](const at::Tensor& t) { return t.unfold(0, 4, 4); }},
};

TEST(InPlace, WritesReachTheCodes) {
  for (const std::string& format : test::stored_formats())
    for (const Write& write : kWrites) {
      SCOPED_TRACE(format + ", " + write.name);
      at::Tensor q = from_float(some_weight(128, 256, at::kFloat), format), values = dequantized(q).clone();
      const at::Tensor before = q.clone();
      const auto version = q._version();
      write.run(values);
      write.run(q);
      ASSERT_TRUE(is_quantized(q));
      EXPECT_TRUE(same_codes(q, requantize_like(values, q)));
      EXPECT_FALSE(same_codes(q, before));
      if (!write.name.starts_with("data")) {  // whose versions libtorch counts apart
        EXPECT_GT(q._version(), version);
      }
    }
}

TEST(InPlace, RandomValuesReachTheCodes) {
  at::Tensor q = from_float(some_weight(128, 256), "int8_blockwise");
  const auto seeded = [] { return at::make_generator<at::CPUGeneratorImpl>(5); };
  const at::Tensor before = q.clone(), values = at::empty(q.sizes(), q.scalar_type());
  q.normal_(0, 3, seeded());
  EXPECT_TRUE(same_codes(q, requantize_like(values.normal_(0, 3, seeded()), before)));
  q.uniform_(2, 3, seeded());
  EXPECT_TRUE(same_codes(q, requantize_like(values.uniform_(2, 3, seeded()), before)));
  EXPECT_FALSE(same_codes(q, requantize_like(values.uniform_(2, 3, seeded()) + 0.25, before)));
}

TEST(InPlace, ViewsOfValuesRefuseToBeWritten) {
  const at::Tensor weight = some_weight(128, 256, at::kFloat);
  for (const std::string& format : test::stored_formats())
    for (const View& view : kViews) {
      SCOPED_TRACE(format + ", " + view.name);
      const at::Tensor q = from_float(weight, format), before = q.clone(), values = dequantized(q);
      at::Tensor part = view.of(q);
      EXPECT_FALSE(is_quantized(part));
      EXPECT_TRUE(part.equal(view.of(values)));
      EXPECT_TRUE((part * 2).equal(view.of(values) * 2));
      EXPECT_TRUE((part * 2).add_(1).equal(view.of(values) * 2 + 1)) << "a result is an ordinary tensor";
      EXPECT_TRUE(part.clone().zero_().equal(at::zeros_like(view.of(values))));
      const auto refuses = [](auto&& write) {
        EXPECT_THAT(write, testing::ThrowsMessage<c10::Error>(HasSubstr("would write into a copy")));
      };
      refuses([&] { part.add_(1); });
      refuses([&] { part.zero_(); });
      refuses([&] { part.copy_(at::ones_like(part)); });
      refuses([&] { at::add_out(part, values, 1); });
      refuses([&] { at::_foreach_add_({part}, 1); });
      refuses([&] { part.index_put_({torch::tensor({0})}, at::zeros({1})); });
      EXPECT_TRUE(same_codes(q, before));
    }
}

TEST(InPlace, WhatChangesTheShapeThrows) {
  const at::Tensor weight = some_weight(128, 256, at::kFloat);
  for (const std::string& format : test::stored_formats()) {
    SCOPED_TRACE(format);
    at::Tensor q = from_float(weight, format), before = q.clone();
    EXPECT_THROW(q.t_(), c10::Error);
    EXPECT_THROW(q.resize_({4, 4}), c10::Error);
    EXPECT_THROW(q.unsqueeze_(0), c10::Error);
    EXPECT_THROW(at::mm_out(q, kOther, at::eye(256).slice(1, 0, 250)), c10::Error);
    EXPECT_THROW(q.add_(at::ones({3, 128, 256})), c10::Error);
    EXPECT_THROW(q.set_data(weight), c10::Error);
    EXPECT_TRUE(same_codes(q, before));
    EXPECT_EQ(q.sizes(), weight.sizes());
  }
}

TEST(InPlace, AliasesSeeEachOthersCodesAndClonesDoNot) {
  at::Tensor q = from_float(some_weight(128, 256, at::kFloat), "int8_row");
  const at::Tensor detached = q.detach(), turned = q.t(), copy = q.clone();
  q.fill_(1);
  EXPECT_EQ(dequantized(detached).min().item<float>(), 1);
  EXPECT_EQ(dequantized(turned).min().item<float>(), 1);
  EXPECT_LT(dequantized(copy).min().item<float>(), 0);
  EXPECT_EQ(turned._version(), q._version());
}

}  // namespace
}  // namespace mezzotint::tensor
