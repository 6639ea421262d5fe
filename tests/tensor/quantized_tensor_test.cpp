#include <gmock/gmock.h>
#include <torch/types.h>

#include <sstream>

#include "mezzotint/base/error.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "tensor/tensor_case.h"

namespace mezzotint::tensor {
namespace {

using test::same_codes;
using test::some_weight;
using test::stored_formats;
using testing::HasSubstr;

TEST(QuantizedTensor, LooksLikeItsWeight) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor weight = some_weight();
    const at::Tensor q = from_float(weight, format);
    EXPECT_TRUE(is_quantized(q));
    EXPECT_FALSE(is_quantized(weight));
    EXPECT_EQ(q.sizes(), weight.sizes());
    EXPECT_EQ(q.strides(), weight.strides());
    EXPECT_EQ(q.scalar_type(), at::kBFloat16);
    EXPECT_EQ(q.device(), weight.device());
    EXPECT_TRUE(q.is_contiguous());
    EXPECT_LT(quantized(q).stored()->bytes(), weight.nbytes() * 3 / 4);
    const double error = test::relative(dequantized(q), weight);
    EXPECT_GT(error, 0);
    EXPECT_LT(error, 0.2);
    std::ostringstream text;
    text << q;
    std::ostringstream values;
    values << dequantized(q);
    EXPECT_EQ(text.str(), values.str());
  }
}

TEST(QuantizedTensor, GenericOperationsKeepTheCodes) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const DispatchScope scope(DispatchScope::Fallback::error);
    const at::Tensor q = from_float(some_weight(), format);
    for (const at::Tensor& same :
         {q.detach(), q.clone(), q.contiguous(), q.to(at::kHalf), q.to(at::kFloat), q.alias(), q.view({256, 512}),
          q.reshape({-1, 512}), q.t().t(), q.transpose(0, 1).transpose(1, 0), q.to(at::kCPU), q.to(q),
          q.to(at::kBFloat16, false, true)}) {
      ASSERT_TRUE(is_quantized(same));
      EXPECT_TRUE(same_codes(same, q));
      EXPECT_EQ(same.sizes(), q.sizes());
    }
    EXPECT_EQ(q.to(at::kHalf).scalar_type(), at::kHalf);
    EXPECT_EQ(q.t().sizes(), at::IntArrayRef({512, 256}));
    EXPECT_FALSE(q.t().is_contiguous());
    EXPECT_EQ(scope.dequantized(), 0u);
    // A clone is another weight, an alias is not.
    EXPECT_NE(quantized(q.clone()).stored(), quantized(q).stored());
    EXPECT_EQ(quantized(q.detach()).stored(), quantized(q).stored());
    EXPECT_TRUE(dequantized(q.t()).equal(dequantized(q).t()));
  }
}

TEST(QuantizedTensor, OtherShapesAreAClearError) {
  const at::Tensor q = from_float(some_weight(), "float8_e4m3fn");
  EXPECT_THAT(
      [&] {
        q.view({512, 256});
      },
      testing::ThrowsMessage<c10::Error>(
          HasSubstr("float8_e4m3fn of shape [256, 512] has no view of shape [512, 256]")));
  const at::Tensor copy = q.reshape({512, 256});
  EXPECT_FALSE(is_quantized(copy));
  EXPECT_TRUE(copy.equal(dequantized(q).reshape({512, 256})));
}

TEST(QuantizedTensor, EverythingElseComputesWithValues) {
  const at::Tensor q = from_float(some_weight(), "int8_row"), values = dequantized(q);
  DispatchScope scope;
  EXPECT_TRUE((q + 1).equal(values + 1));
  EXPECT_TRUE(at::cat({q, values}).equal(at::cat({values, values})));
  EXPECT_TRUE(q.sum().equal(values.sum()));
  EXPECT_TRUE(q.index({torch::tensor({3, 1})}).equal(values.index({torch::tensor({3, 1})})));
  EXPECT_TRUE(q.to(at::kDouble).equal(values.to(at::kDouble)));
  EXPECT_EQ(scope.dequantized(), 5u);
  EXPECT_THAT(scope.summary(), HasSubstr("aten::cat"));
  const DispatchScope strict(DispatchScope::Fallback::error);
  EXPECT_THROW(q.sum(), c10::Error);
  EXPECT_EQ(scope.dequantized(), 5u);
}

TEST(QuantizedTensor, InPlaceArithmeticWritesThrough) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor weight = some_weight();
    at::Tensor q = from_float(weight, format);
    const at::Tensor before = dequantized(q), other = some_weight(256, 512, at::kBFloat16, 2);
    const auto version = q._version();
    at::Tensor& same = q.add_(other);
    EXPECT_TRUE(same.is_same(q));
    EXPECT_TRUE(is_quantized(q));
    EXPECT_GT(q._version(), version);
    EXPECT_TRUE(same_codes(q, requantize_like(before + other, q)));
    EXPECT_LT(test::relative(dequantized(q), weight + other), 0.25);
    q.zero_();
    EXPECT_EQ(dequantized(q).abs().max().item<float>(), 0);
  }
}

TEST(QuantizedTensor, CopyInKeepsTheLayout) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    at::Tensor q = from_float(some_weight(), format);
    const at::Tensor other = some_weight(256, 512, at::kFloat, 2), stored = from_float(other, format);
    q.copy_(stored);
    EXPECT_TRUE(same_codes(q, stored));
    EXPECT_EQ(q.scalar_type(), at::kBFloat16) << "the destination's";
    q.copy_(some_weight());
    EXPECT_TRUE(same_codes(q, from_float(some_weight(), format)));
    at::Tensor plain = at::empty({256, 512}, at::kFloat);
    plain.copy_(q);
    EXPECT_TRUE(plain.equal(dequantized(q).to(at::kFloat))) << "values in the logical dtype";
    EXPECT_EQ(quantized(at::empty_like(q)).stored()->layout.format->name, format);
  }
}

TEST(QuantizedTensor, RequantizeKeepsEveryParameter) {
  for (const std::string label :
       {"int8_row", "int8_blockwise:block_size=64", "int8_convrot", "convrot_w4a4", "nvfp4"}) {
    const at::Tensor q = from_float(some_weight(), label), again = requantize_like(some_weight(), q);
    EXPECT_TRUE(same_codes(q, again)) << label;
    EXPECT_EQ(quantized(q).stored()->layout.options, quantized(again).stored()->layout.options) << label;
  }
}

TEST(QuantizedTensor, RefusesWhatAFormatCannotStore) {
  EXPECT_THAT([] { from_float(some_weight(3, 7), "int8_blockwise"); }, testing::Throws<Error>());
  EXPECT_THAT([] { from_float(some_weight(), "int9"); }, testing::Throws<Error>());
}

TEST(QuantizedTensor, SetDataTakesAnotherQuantizedTensor) {
  at::Tensor q = from_float(some_weight(), "float8_e4m3fn");
  const at::Tensor half = q.to(at::kHalf);
  q.set_data(half);
  EXPECT_EQ(q.scalar_type(), at::kHalf);
  EXPECT_TRUE(same_codes(q, half));
}

}  // namespace
}  // namespace mezzotint::tensor
