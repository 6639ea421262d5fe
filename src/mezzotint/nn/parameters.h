#pragma once
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <string>

/// Putting tensors in the place of a module's parameters (room-internal).
namespace mezzotint::nn {

/// Makes `value` what the module's own parameter or buffer is. A plain tensor goes where the old one was (set_data:
/// every handle sees it), so any module takes it. What cannot be seen through an old handle, a quantized tensor or any
/// in the place of one on the meta device, is exchanged in Layers and in modules of torch with a weight. Returns false,
/// and changes nothing, where the module is neither.
bool place(torch::nn::Module& module, const std::string& name, const at::Tensor& value);

/// The same for the weights and biases of torch::nn's linear, convolution, embedding and norm layers: their members
/// and the entry in the list of parameters (torch_modules.cpp, apart because those headers are slow).
bool place_in_torch_module(torch::nn::Module& module, const std::string& name, const at::Tensor& value);

/// Whether it is torch::nn's Linear or Conv1d to Conv3d.
bool is_product_of_torch(const torch::nn::Module& module);

/// Calls visit(module, path) for a module and everything below it; `path` ends in '.', or is empty.
template <class Visit>
void visit_modules(torch::nn::Module& module, const std::string& path, Visit&& visit) {
  visit(module, path);
  for (const auto& child : module.named_children()) visit_modules(*child.value(), path + child.key() + ".", visit);
}

}  // namespace mezzotint::nn
