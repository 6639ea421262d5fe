#include <ATen/detail/CUDAHooksInterface.h>
#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "tensor/tensor_case.h"

// On a GPU: against what the CPU computes.
namespace mezzotint::tensor {
namespace {

using test::relative;
using test::same_codes;
using test::some_weight;
using test::stored_formats;

class CudaTensors : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::detail::getCUDAHooks().hasCUDA()) GTEST_SKIP() << "no GPU, or libtorch has no CUDA";
  }
  const at::Device gpu_{at::kCUDA, 0};
};

TEST_F(CudaTensors, MoveThereAndBack) {
  for (const std::string& format : stored_formats()) {
    SCOPED_TRACE(format);
    const at::Tensor q = from_float(some_weight(), format), there = q.to(gpu_);
    EXPECT_EQ(there.device(), gpu_);
    EXPECT_TRUE(same_codes(q, there));
    EXPECT_TRUE(same_codes(q, there.to(at::kCPU)));
    EXPECT_TRUE(same_codes(q, there.clone()));
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      EXPECT_TRUE(dequantized(there, type).cpu().equal(dequantized(q, type))) << c10::toString(type);
    EXPECT_TRUE(same_codes(q, from_float(some_weight().to(gpu_), format)));
  }
}

TEST_F(CudaTensors, ProductsAndGradientsAreTheCpus) {
  for (const std::string& format : stored_formats())
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const int64_t m : {1, 16, 17, 300}) {
        SCOPED_TRACE(format + ", " + c10::toString(type) + ", M = " + std::to_string(m));
        const at::Tensor q = from_float(some_weight(256, 512, type), format);
        const at::Tensor x = (some_weight(m, 512, type, 3) * 50).requires_grad_();
        const at::Tensor there = x.detach().to(gpu_).requires_grad_(), bias = some_weight(1, 256, type, 5).view({256});
        const DispatchScope scope(DispatchScope::Fallback::error);
        const at::Tensor y = at::linear(x, q, bias), got = at::linear(there, q.to(gpu_), bias.to(gpu_));
        // Inputs are rounded on both sides, on one, or on none: what that costs is in the formats' own tests.
        EXPECT_LT(relative(got.cpu(), y), 0.2);
        const at::Tensor exact =
            at::linear(x.detach().to(at::kDouble), dequantized(q, at::kFloat).to(at::kDouble), bias.to(at::kDouble));
        EXPECT_LT(relative(got.cpu(), exact), 1.3 * relative(y, exact) + 5e-3);
        EXPECT_GT(relative(got.cpu(), exact.mul(1.25)), 0.1) << "negative control";
        const at::Tensor g = some_weight(m, 256, type, 4);
        y.backward(g);
        got.backward(g.to(gpu_));
        EXPECT_LT(relative(there.grad().cpu(), x.grad()), type == at::kFloat ? 1e-5 : 6e-3);
      }
}

}  // namespace
}  // namespace mezzotint::tensor
