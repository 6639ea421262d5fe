#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>

#include <vector>

#include "mezzotint/tensor/activations.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/product.h"

// linear, mm, bmm, addmm and matmul with one quantized operand.
namespace mezzotint::tensor {
namespace {

using c10::OperatorHandle;
using torch::jit::Stack;

const std::string kBoth = "both operands are quantized";

/// Whether x W' (or x W, for a weight that is not transposed) can be computed from codes.
std::string why_not(const at::Tensor& x, const at::Tensor& weight) {
  if (is_quantized(x)) return kBoth;
  const bool bank = weight.dim() == 3 && x.dim() == 3 && x.size(0) == weight.size(0);
  if (weight.dim() != 2 && !bank) return "a batch that is not that of the bank of experts";
  return why_no_product(x, quantized(weight));
}

/// x @ q for a quantized q [K, N] as the caller sees it.
at::Tensor from_left(const at::Tensor& x, const at::Tensor& q, const std::optional<at::Tensor>& bias = std::nullopt,
                     std::optional<at::ScalarType> type = std::nullopt) {
  return multiply_differentiably(x, q, quantized(q).transposed() ? Side::forward : Side::backward, bias, type);
}

/// q @ x for a quantized q [N, K] as the caller sees it: (x' q')'.
at::Tensor from_right(const at::Tensor& q, const at::Tensor& x, std::optional<at::ScalarType> type) {
  const Side side = quantized(q).transposed() ? Side::backward : Side::forward;
  if (x.dim() == 1) return multiply_differentiably(x, q, side, std::nullopt, type);
  return multiply_differentiably(x.transpose(-2, -1), q, side, std::nullopt, type).transpose(-2, -1);
}

std::string linear(const OperatorHandle& op, Stack& stack) {
  const at::Tensor x = torch::jit::peek(stack, 0, 3).toTensor(), weight = torch::jit::peek(stack, 1, 3).toTensor();
  const auto bias = torch::jit::peek(stack, 2, 3).toOptional<at::Tensor>();
  if (!is_quantized(weight)) return "its weight is not quantized";
  if (weight.dim() != 2) return "a weight that is no matrix";
  if (bias && is_quantized(*bias)) return "a quantized bias";
  if (bias && bias->dim() != 1) return "a bias that is no vector";
  if (at::Tensor y = multiply_codes(x, weight, bias); y.defined()) {
    tell_kernel("int8 x int8 blocks");
    return finish(op, stack, std::move(y));
  }
  if (std::string reason = why_not(x, weight); !reason.empty()) return reason;
  const Side side = quantized(weight).transposed() ? Side::backward : Side::forward;
  return finish(op, stack, multiply_differentiably(x, weight, side, bias));
}

/// a b, with the dtype of the one that is not quantized, or `type`.
std::string product(const at::Tensor& a, const at::Tensor& b, at::Tensor& result,
                    std::optional<at::ScalarType> type = std::nullopt) {
  const bool left = is_quantized(b);
  if (std::string reason = left ? why_not(a, b) : why_not(b, a); !reason.empty()) return reason;
  result = left ? from_left(a, b, std::nullopt, type) : from_right(a, b, type);
  return "";
}

std::string matmul(const OperatorHandle& op, Stack& stack) {
  at::Tensor result;
  std::string reason =
      product(torch::jit::peek(stack, 0, 2).toTensor(), torch::jit::peek(stack, 1, 2).toTensor(), result);
  return reason.empty() ? finish(op, stack, std::move(result)) : reason;
}

/// mm, mv and bmm: matmul of these ranks and no others, about which libtorch complains itself.
template <int64_t A, int64_t B>
std::string of_ranks(const OperatorHandle& op, Stack& stack) {
  if (torch::jit::peek(stack, 0, 2).toTensor().dim() != A || torch::jit::peek(stack, 1, 2).toTensor().dim() != B)
    return "ranks that do not fit";
  return matmul(op, stack);
}

std::string addmm(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = torch::jit::peek(stack, 0, 5).toTensor(), a = torch::jit::peek(stack, 1, 5).toTensor(),
                   b = torch::jit::peek(stack, 2, 5).toTensor();
  const at::Scalar beta = torch::jit::peek(stack, 3, 5).toScalar(), alpha = torch::jit::peek(stack, 4, 5).toScalar();
  if (is_quantized(self)) return "a quantized term to be added";
  if (a.dim() != 2 || b.dim() != 2) return "ranks that do not fit";
  at::Tensor result;
  if (is_quantized(b) && alpha.equal(1) && beta.equal(1) && self.sizes() == b.sizes().slice(1)) {
    if (std::string reason = why_not(a, b); !reason.empty()) return reason;
    return finish(op, stack, from_left(a, b, self));
  }
  // One rounding to the output's dtype, at the end.
  const at::ScalarType type = is_quantized(b) ? a.scalar_type() : b.scalar_type();
  if (std::string reason = product(a, b, result, at::kFloat); !reason.empty()) return reason;
  if (!alpha.equal(1)) result = at::mul(result, alpha);
  if (!beta.equal(0)) result = at::add(result, self, beta);  // as in torch: with beta 0 a NaN in self is not seen
  return finish(op, stack, result.to(type));
}

}  // namespace

std::span<const Operation> product_operations() {
  static const std::vector<Operation> operations = {
      {"aten::linear", linear},     {"aten::mm", of_ranks<2, 2>},  {"aten::matmul", matmul},
      {"aten::mv", of_ranks<2, 1>}, {"aten::bmm", of_ranks<3, 3>}, {"aten::addmm", addmm},
  };
  return operations;
}

}  // namespace mezzotint::tensor
