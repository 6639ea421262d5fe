#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>

#include <set>
#include <string_view>

#include "mezzotint/nn/bypass/layer_bypass.h"
#include "mezzotint/tensor/operations.h"

// The operations that modules compute with a weight.
namespace mezzotint::nn {
namespace {

/// Products and gathers that would go past the adapters.
bool reads_weight(std::string_view operation) {
  static const std::set<std::string_view> names = {
      "aten::bmm",
      "aten::baddbmm",
      "aten::mv",
      "aten::addmv",
      "aten::einsum",
      "aten::bilinear",
      "aten::embedding",
      "aten::embedding_bag",
      "aten::dot",
      "aten::tensordot",
      "aten::inner",
      "aten::convolution",
      "aten::_convolution",
      "aten::conv_transpose1d",
      "aten::conv_transpose2d",
      "aten::conv_transpose3d",
  };
  return names.contains(operation);
}

LayerCall convolution_of(const torch::jit::Stack& stack, size_t count, const at::Tensor& weight) {
  const auto per_dimension = [&](std::vector<int64_t> values) {
    if (values.size() == 1) values.resize(static_cast<size_t>(weight.dim()) - 2, values[0]);
    return values;
  };
  LayerCall call;
  call.kernel = weight.sizes().slice(2).vec();
  call.stride = per_dimension(torch::jit::peek(stack, 3, count).toIntVector());
  const c10::IValue& padding = torch::jit::peek(stack, 4, count);
  if (padding.isString()) {
    call.padding_name = padding.toStringRef();
  } else {
    call.padding = per_dimension(padding.toIntVector());
  }
  call.dilation = per_dimension(torch::jit::peek(stack, 5, count).toIntVector());
  call.groups = torch::jit::peek(stack, 6, count).toInt();
  return call;
}

}  // namespace

bool LayerBypass::intercept(const c10::OperatorHandle& op, torch::jit::Stack& stack, const at::Tensor& argument) {
  const std::string& name = op.schema().name();
  const size_t count = op.schema().arguments().size();
  const bool transposed = tensor::as_stand_in(argument)->transposed();
  const auto operand = [&](size_t i) {
    const c10::IValue& value = torch::jit::peek(stack, i, count);
    return value.isTensor() ? value.toTensor() : at::Tensor();
  };
  const auto is_weight = [&](size_t i, bool turned) { return operand(i).is_same(argument) && transposed == turned; };
  const auto finish = [&](at::Tensor y) {
    tensor::finish(op, stack, std::move(y));
    return true;
  };
  if (name == "aten::linear" && is_weight(1, false)) return finish(forward({}, operand(0), operand(2)));
  if ((name == "aten::matmul" || name == "aten::mm") && count == 2 && is_weight(1, true))
    return finish(forward({}, operand(0), {}));
  if (name == "aten::addmm" && count == 5 && is_weight(2, true)) {
    const at::Scalar beta = torch::jit::peek(stack, 3, count).toScalar(),
                     alpha = torch::jit::peek(stack, 4, count).toScalar();
    const at::Tensor self = operand(0);
    if (beta.equal(1) && alpha.equal(1) && self.dim() == 1 && self.size(0) == weight_.size(0))
      return finish(forward({}, operand(1), self));
    at::Tensor y = at::mul(forward({}, operand(1), {}), alpha);
    return finish(beta.equal(0) ? std::move(y) : at::add(y, self, beta));
  }
  if ((name == "aten::conv1d" || name == "aten::conv2d" || name == "aten::conv3d") && is_weight(1, false)) {
    const at::Tensor x = operand(0);
    const LayerCall call = convolution_of(stack, count, weight_);
    if (x.dim() == weight_.dim()) return finish(forward(call, x, operand(2)));
    TORCH_CHECK(x.dim() + 1 == weight_.dim(), name, ": an input of rank ", x.dim(), " does not fit the kernel");
    return finish(forward(call, x.unsqueeze(0), operand(2)).squeeze(0));
  }
  TORCH_CHECK(!reads_weight(name), name,
              " would leave out the adapters that are attached to this weight: they act on "
              "linear layers and convolutions (linear, matmul, mm and addmm with W', conv1d to conv3d)");
  return false;
}

}  // namespace mezzotint::nn
