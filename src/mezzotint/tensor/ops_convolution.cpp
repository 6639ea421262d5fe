#include <ATen/ops/constant_pad_nd.h>
#include <fmt/format.h>

#include <vector>

#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/product.h"

// Convolutions as products: every position's patch is a row (im2col).
namespace mezzotint::tensor {
namespace {

struct Geometry {
  std::vector<int64_t> kernel, stride, padding, dilation;
  size_t rank() const { return kernel.size(); }
};

std::vector<int64_t> per_dimension(std::vector<int64_t> values, size_t rank) {
  if (values.size() == 1) values.resize(rank, values[0]);
  return values;
}

/// [B, out..., C, kernel...] as a view of the padded input.
at::Tensor patches(const at::Tensor& x, const Geometry& g) {
  std::vector<int64_t> padding;
  for (size_t d = g.rank(); d-- > 0;) padding.insert(padding.end(), 2, g.padding[d]);
  const at::Tensor padded = at::constant_pad_nd(x, padding).contiguous();
  std::vector<int64_t> sizes = {padded.size(0)}, strides = {padded.stride(0)};
  for (size_t d = 0; d < g.rank(); ++d) {
    const auto axis = static_cast<int64_t>(d) + 2;
    const int64_t reach = g.dilation[d] * (g.kernel[d] - 1) + 1;
    TORCH_CHECK(padded.size(axis) >= reach, "a kernel of ", reach, " positions does not fit an input of ",
                padded.size(axis));
    sizes.push_back((padded.size(axis) - reach) / g.stride[d] + 1);
    strides.push_back(padded.stride(axis) * g.stride[d]);
  }
  sizes.push_back(padded.size(1));
  strides.push_back(padded.stride(1));
  for (size_t d = 0; d < g.rank(); ++d) {
    sizes.push_back(g.kernel[d]);
    strides.push_back(padded.stride(static_cast<int64_t>(d) + 2) * g.dilation[d]);
  }
  return padded.as_strided(sizes, strides);
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
  Geometry g{.kernel = weight.sizes().slice(2).vec(),
             .stride = per_dimension(argument(3).toIntVector(), rank),
             .padding = per_dimension(argument(4).toIntVector(), rank),
             .dilation = per_dimension(argument(5).toIntVector(), rank)};
  const at::Tensor columns = patches(batched ? x : x.unsqueeze(0), g);
  std::vector<int64_t> shape = columns.sizes().slice(0, rank + 1).vec();
  shape.push_back(weight.numel() / std::max<int64_t>(weight.size(0), 1));
  at::Tensor y = multiply_differentiably(columns.reshape(shape), weight, Side::forward, bias).movedim(-1, 1);
  if (!batched) y = y.squeeze(0);
  torch::jit::drop(stack, count);
  torch::jit::push(stack, y.contiguous());
  return "";
}

}  // namespace

std::span<const Operation> convolution_operations() {
  static const std::vector<Operation> operations = {{"aten::conv2d", convolution}, {"aten::conv3d", convolution}};
  return operations;
}

}  // namespace mezzotint::tensor
