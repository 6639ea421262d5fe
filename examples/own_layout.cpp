// A layout of one's own, in one file outside the library: example_own_layout MODEL.safetensors OUT.safetensors
// quantizes "layer.weight" while it loads, saves, loads what it saved, and multiplies with both.
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/where.h>

#include <iostream>

#include "mezzotint/formats/common/bytewise.h"
#include "mezzotint/nn/layer.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/save.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "mezzotint/tensor/registry.h"

namespace mezzotint::formats {

// Logarithms: code 0 is 0, another c stands for 2^(c / 8 - 14), or with bit 7 for its negative.
uint8_t encode(float x) {
  const float power = std::fmax(0.0f, std::fmin(std::rint(8 * (std::log2(std::fabs(x)) + 14)), 127.0f));
  return static_cast<uint8_t>(power + (power > 0 && x < 0 ? 128 : 0));
}
float decode(uint8_t code) {
  const float value = std::exp2(static_cast<float>(code % 128) / 8 - 14);
  return code % 128 == 0 ? 0 : code < 128 ? value : -value;
}

extern const Format format_log8;
const Format format_log8 = bytewise<format_log8, encode, decode>("log8", "8-bit logarithms");

}  // namespace mezzotint::formats

using namespace mezzotint;

// Optional: without it, products decode by the function above.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const at::Tensor codes = tensor::quantized(weight).stored()->tensors[0].to(x.scalar_type());
  const at::Tensor values = (codes.remainder(128) / 8 - 14).exp2();
  return at::linear(x, at::where(codes.remainder(128) == 0, 0 * values, at::where(codes < 128, values, -values)), bias);
}

struct Network : nn::Layer {
  std::shared_ptr<nn::Linear> layer = register_module("layer", std::make_shared<nn::Linear>(96, 64, false));
};

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  tensor::register_layout_op("aten::linear", "log8", linear);
  Network network, again;
  nn::load(network, checkpoint::Model::open(argv[1]), {.compute = at::kFloat, .overrides = {{"layer", "log8"}}});
  nn::save(network, argv[2], {.overwrite = true});
  nn::load(again, checkpoint::Model::open(argv[2]), {.compute = at::kFloat});

  const at::Tensor x = at::randn({3, 96});
  const tensor::DispatchScope strict(tensor::DispatchScope::Fallback::error);
  const at::Tensor y = network.layer->forward(x);
  std::cout << tensor::describe(again.layer->weight) << '\n' << y << '\n';
  return y.equal(again.layer->forward(x)) ? 0 : 1;
}
