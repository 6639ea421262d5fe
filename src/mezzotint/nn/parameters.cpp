#include "mezzotint/nn/parameters.h"

#include <ATen/ops/_has_compatible_shallow_copy_type.h>

#include "mezzotint/nn/layer.h"

namespace mezzotint::nn {

bool place(torch::nn::Module& module, const std::string& name, const at::Tensor& value) {
  auto* layer = dynamic_cast<Layer*>(&module);
  if (layer != nullptr && layer->exchanges(name)) {
    layer->exchange(name, value);
    return true;
  }
  at::Tensor old;
  for (const auto& list : {module.named_parameters(false), module.named_buffers(false)})
    if (const at::Tensor* found = list.find(name)) old = *found;
  TORCH_CHECK(old.defined(), "the module has no parameter ", name);
  TORCH_CHECK(old.sizes() == value.sizes(), name, " has the shape ", old.sizes(), ", not ", value.sizes());
  if (at::_has_compatible_shallow_copy_type(old, value)) {
    old.set_data(value);
    return true;
  }
  return place_in_torch_module(module, name, value);
}

}  // namespace mezzotint::nn
