#include "mezzotint/nn/layer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rms_norm.h>

#include <utility>

namespace mezzotint::nn {

void Layer::exchange(const std::string& name, at::Tensor value) {
  const auto found = members_.find(name);
  TORCH_CHECK(found != members_.end(), "the module has no parameter ", name);
  TORCH_CHECK(found->second->sizes() == value.sizes(), name, " has the shape ", found->second->sizes(), ", not ",
              value.sizes());
  *found->second = value;
  parameters_[name] = std::move(value);
}

void Layer::add_parameter(const std::string& name, at::Tensor& member, at::IntArrayRef shape) {
  member = register_parameter(name, at::empty(shape, at::TensorOptions(at::kFloat).device(at::kMeta)), false);
  members_.emplace(name, &member);
}

Linear::Linear(int64_t inputs, int64_t outputs, bool with_bias) {
  add_parameter("weight", weight, {outputs, inputs});
  if (with_bias) add_parameter("bias", bias, {outputs});
}

at::Tensor Linear::forward(const at::Tensor& x) const {
  return at::linear(x, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

RmsNorm::RmsNorm(int64_t width, double eps) : eps_(eps) {
  add_parameter("weight", weight, {width});
}

at::Tensor RmsNorm::forward(const at::Tensor& x) const {
  if (x.device().is_cpu() && x.scalar_type() != at::kFloat) {  // at::rms_norm takes eight times as long for them
    const at::Tensor values = x.to(at::kFloat);
    const at::Tensor norm = at::linalg_vector_norm(values, 2, at::IntArrayRef({-1}), true);
    const at::Tensor factor = (norm.square() / weight.size(0)).add_(eps_).rsqrt_();
    return (values * factor).mul_(weight.to(at::kFloat)).to(x.scalar_type());
  }
  return at::rms_norm(x, {weight.size(0)}, weight, eps_);
}

LayerNorm::LayerNorm(int64_t width, double eps) : eps_(eps) {
  add_parameter("weight", weight, {width});
  add_parameter("bias", bias, {width});
}

at::Tensor LayerNorm::forward(const at::Tensor& x) const {
  return at::layer_norm(x, {weight.size(0)}, weight, bias, eps_);
}

}  // namespace mezzotint::nn
