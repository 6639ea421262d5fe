#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include "mezzotint/nn/parameters.h"

namespace mezzotint::nn {
namespace {

/// Where torch keeps the handles that named_parameters() gives away copies of.
struct Access : torch::nn::Module {
  static at::Tensor& parameter(torch::nn::Module& module, const std::string& name) {
    return (module.*(&Access::parameters_))[name];
  }
};

template <class Impl>
bool place_in(torch::nn::Module& module, const std::string& name, const at::Tensor& value) {
  auto* impl = dynamic_cast<Impl*>(&module);
  if (impl == nullptr) return false;
  at::Tensor* member = nullptr;
  if (name == "weight") member = &impl->weight;
  if constexpr (requires { impl->bias; }) {
    if (name == "bias") member = &impl->bias;
  }
  if (member == nullptr || !member->defined()) return false;
  at::Tensor placed = value;
  if (at::isFloatingType(value.scalar_type()) && !value.requires_grad() && value.unsafeGetTensorImpl()->has_storage())
    placed.set_requires_grad(member->requires_grad());
  *member = placed;
  Access::parameter(module, name) = placed;
  return true;
}

template <class... Impls>
bool place_in_any(torch::nn::Module& module, const std::string& name, const at::Tensor& value) {
  return (place_in<Impls>(module, name, value) || ...);
}

template <class... Impls>
bool is_any(const torch::nn::Module& module) {
  return ((dynamic_cast<const Impls*>(&module) != nullptr) || ...);
}

}  // namespace

bool place_in_torch_module(torch::nn::Module& module, const std::string& name, const at::Tensor& value) {
  using namespace torch::nn;
  return place_in_any<LinearImpl, BilinearImpl, EmbeddingImpl, EmbeddingBagImpl, Conv1dImpl, Conv2dImpl, Conv3dImpl,
                      ConvTranspose1dImpl, ConvTranspose2dImpl, ConvTranspose3dImpl, LayerNormImpl, GroupNormImpl,
                      BatchNorm1dImpl, BatchNorm2dImpl, BatchNorm3dImpl>(module, name, value);
}

bool is_product_of_torch(const torch::nn::Module& module) {
  return is_any<torch::nn::LinearImpl, torch::nn::Conv1dImpl, torch::nn::Conv2dImpl, torch::nn::Conv3dImpl>(module);
}

}  // namespace mezzotint::nn
