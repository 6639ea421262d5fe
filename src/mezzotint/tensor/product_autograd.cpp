#include <torch/csrc/autograd/custom_function.h>

#include "mezzotint/tensor/product.h"

namespace mezzotint::tensor {
namespace {

class Product : public torch::autograd::Function<Product> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, bool backward, std::optional<at::ScalarType> type) {
    context->saved_data["weight"] = weight.detach();
    context->saved_data["backward"] = backward;
    context->saved_data["bias"] = bias.has_value();
    return multiply(x, quantized(weight), backward ? Side::backward : Side::forward, bias, type);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor weight = context->saved_data["weight"].toTensor();
    const bool swapped = context->saved_data["backward"].toBool();
    const at::Tensor& g = gradients[0];
    at::Tensor of_x, of_bias;
    if (context->needs_input_grad(0))
      of_x = multiply_differentiably(g, weight, swapped ? Side::forward : Side::backward);
    // A bias that is not there has no place among the inputs.
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2))
      of_bias = g.reshape({-1, g.size(-1)}).sum(0);
    return {of_x, at::Tensor(), of_bias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor multiply_differentiably(const at::Tensor& x, const at::Tensor& weight, Side side,
                                   const std::optional<at::Tensor>& bias, std::optional<at::ScalarType> type) {
  return Product::apply(x, weight, bias, side == Side::backward, type);
}

}  // namespace mezzotint::tensor
