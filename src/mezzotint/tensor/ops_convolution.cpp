#include <fmt/format.h>

#include <vector>

#include "mezzotint/tensor/convolution.h"
#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/product.h"

// conv2d and conv3d with a quantized weight.
namespace mezzotint::tensor {
namespace {

std::vector<int64_t> per_dimension(std::vector<int64_t> values, size_t rank) {
  if (values.size() == 1) values.resize(rank, values[0]);
  return values;
}

std::string convolution(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
  const size_t count = op.schema().arguments().size();
  const auto argument = [&](size_t i) -> const c10::IValue& { return torch::jit::peek(stack, i, count); };
  const at::Tensor x = argument(0).toTensor(), weight = argument(1).toTensor();
  const auto bias = argument(2).toOptional<at::Tensor>();
  if (!is_quantized(weight)) return "its weight is not quantized";
  if (is_quantized(x) || (bias && is_quantized(*bias))) return "more than the weight is quantized";
  if (argument(6).toInt() != 1) return "groups";
  if (std::string reason = why_no_product(x, quantized(weight)); !reason.empty()) return reason;
  const auto rank = static_cast<size_t>(weight.dim()) - 2;
  const bool batched = x.dim() == weight.dim();
  TORCH_CHECK(batched || x.dim() + 1 == weight.dim(), "an input of rank ", x.dim(), " does not fit a kernel of rank ",
              weight.dim());
  TORCH_CHECK(x.size(batched ? 1 : 0) == weight.size(1), "an input of ", x.size(batched ? 1 : 0),
              " channels does not fit a kernel of ", weight.size(1));
  const Geometry g{.kernel = weight.sizes().slice(2).vec(),
                   .stride = per_dimension(argument(3).toIntVector(), rank),
                   .padding = per_dimension(argument(4).toIntVector(), rank),
                   .dilation = per_dimension(argument(5).toIntVector(), rank)};
  const at::Tensor images = batched ? x : x.unsqueeze(0);
  at::Tensor y = convolve(images, weight, bias, g, faster_convolution(images, weight, g));
  if (!batched) y = y.squeeze(0);
  return finish(op, stack, std::move(y));
}

}  // namespace

std::span<const Operation> convolution_operations() {
  static const std::vector<Operation> operations = {{"aten::conv2d", convolution}, {"aten::conv3d", convolution}};
  return operations;
}

}  // namespace mezzotint::tensor
