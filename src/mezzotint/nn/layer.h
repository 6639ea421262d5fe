#pragma once
#include <torch/nn/module.h>

#include <map>
#include <string>

/// Modules whose parameters can become tensors of another kind.
namespace mezzotint::nn {

/// A torch::nn::Module that knows where its parameters are kept: torch's own cannot take a quantized tensor in the
/// place of a plain one, which two handles share. Parameters start on the meta device, without memory.
class Layer : public torch::nn::Module {
 public:
  using torch::nn::Module::Module;

  /// Puts a tensor of the same shape in the place of a parameter of this module (not of its children). Throws
  /// c10::Error where there is no such parameter or the shape differs.
  void exchange(const std::string& name, at::Tensor value);
  /// Whether exchange() knows a parameter of this name.
  bool exchanges(const std::string& name) const { return members_.contains(name); }

 protected:
  /// `member` is where forward() looks; it must live as long as the module.
  void add_parameter(const std::string& name, at::Tensor& member, at::IntArrayRef shape);

 private:
  std::map<std::string, at::Tensor*> members_;
};

/// y = x W' + b.
class Linear : public Layer {
 public:
  Linear(int64_t inputs, int64_t outputs, bool with_bias = true);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor weight, bias;
};

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension.
class RmsNorm : public Layer {
 public:
  RmsNorm(int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor weight;

 private:
  double eps_;
};

/// Over the last dimension, with weight and bias.
class LayerNorm : public Layer {
 public:
  LayerNorm(int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor weight, bias;

 private:
  double eps_;
};

}  // namespace mezzotint::nn
