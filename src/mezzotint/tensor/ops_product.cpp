#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>

#include <vector>

#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/product.h"

// linear, mm, bmm, addmm and matmul with one quantized operand.
namespace mezzotint::tensor {
namespace {

using c10::OperatorHandle;
using torch::jit::Stack;

std::string finish(const OperatorHandle& op, Stack& stack, at::Tensor result) {
  torch::jit::drop(stack, op.schema().arguments().size());
  torch::jit::push(stack, std::move(result));
  return "";
}

const std::string kBoth = "both operands are quantized";

/// Whether x W' (or x W, for a weight that is not transposed) can be computed from codes.
std::string why_not(const at::Tensor& x, const at::Tensor& weight) {
  if (is_quantized(x)) return kBoth;
  const bool bank = weight.dim() == 3 && x.dim() == 3 && x.size(0) == weight.size(0);
  if (weight.dim() != 2 && !bank) return "a batch that is not that of the bank of experts";
  return why_no_product(x, quantized(weight));
}

/// x @ q for a quantized q [K, N] as the caller sees it.
at::Tensor from_left(const at::Tensor& x, const at::Tensor& q, const std::optional<at::Tensor>& bias = std::nullopt) {
  return multiply_differentiably(x, q, quantized(q).transposed() ? Side::forward : Side::backward, bias);
}

/// q @ x for a quantized q [N, K] as the caller sees it: (x' q')'.
at::Tensor from_right(const at::Tensor& q, const at::Tensor& x) {
  const Side side = quantized(q).transposed() ? Side::backward : Side::forward;
  if (x.dim() == 1) return multiply_differentiably(x, q, side);
  return multiply_differentiably(x.transpose(-2, -1), q, side).transpose(-2, -1);
}

std::string linear(const OperatorHandle& op, Stack& stack) {
  const at::Tensor x = torch::jit::peek(stack, 0, 3).toTensor(), weight = torch::jit::peek(stack, 1, 3).toTensor();
  const auto bias = torch::jit::peek(stack, 2, 3).toOptional<at::Tensor>();
  if (!is_quantized(weight)) return "its weight is not quantized";
  if (weight.dim() != 2) return "a weight that is no matrix";
  if (bias && is_quantized(*bias)) return "a quantized bias";
  if (std::string reason = why_not(x, weight); !reason.empty()) return reason;
  const Side side = quantized(weight).transposed() ? Side::backward : Side::forward;
  return finish(op, stack, multiply_differentiably(x, weight, side, bias));
}

/// A product of two tensors at the stack's end, minus `extra` further arguments.
std::string product(const at::Tensor& a, const at::Tensor& b, at::Tensor& result) {
  const bool left = is_quantized(b);
  if (std::string reason = left ? why_not(a, b) : why_not(b, a); !reason.empty()) return reason;
  if (!left && b.dim() > 2 && a.dim() == 2) return "a batch behind a quantized operand";
  result = left ? from_left(a, b) : from_right(a, b);
  return "";
}

std::string matmul(const OperatorHandle& op, Stack& stack) {
  at::Tensor result;
  std::string reason =
      product(torch::jit::peek(stack, 0, 2).toTensor(), torch::jit::peek(stack, 1, 2).toTensor(), result);
  return reason.empty() ? finish(op, stack, std::move(result)) : reason;
}

std::string addmm(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = torch::jit::peek(stack, 0, 5).toTensor(), a = torch::jit::peek(stack, 1, 5).toTensor(),
                   b = torch::jit::peek(stack, 2, 5).toTensor();
  const at::Scalar beta = torch::jit::peek(stack, 3, 5).toScalar(), alpha = torch::jit::peek(stack, 4, 5).toScalar();
  if (is_quantized(self)) return "a quantized term to be added";
  at::Tensor result;
  if (std::string reason = product(a, b, result); !reason.empty()) return reason;
  if (!alpha.equal(1)) result = at::mul(result, alpha);
  if (!beta.equal(0)) result = at::add(result, self, beta);  // as in torch: with beta 0 a NaN in self is not seen
  return finish(op, stack, std::move(result));
}

}  // namespace

std::span<const Operation> product_operations() {
  static const std::vector<Operation> operations = {
      {"aten::linear", linear}, {"aten::mm", matmul},  {"aten::matmul", matmul},
      {"aten::mv", matmul},     {"aten::bmm", matmul}, {"aten::addmm", addmm},
  };
  return operations;
}

}  // namespace mezzotint::tensor
