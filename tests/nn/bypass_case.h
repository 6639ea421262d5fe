#pragma once
#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter_file.h"
#include "mezzotint/nn/bypass/bypass.h"

/// Layers with adapters of every kind.
namespace mezzotint::test {

/// A module with one layer, "layer", of 16 inputs and 24 outputs.
struct OneLayer {
  std::shared_ptr<torch::nn::Module> root, layer;
  std::function<at::Tensor(const at::Tensor&)> run;
  at::Tensor x;

  at::Tensor weight() const { return layer->named_parameters(false)["weight"]; }
  at::Tensor forward() const { return run(x); }
};

inline at::Tensor noise(at::IntArrayRef shape, uint64_t seed, double size = 1) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return torch::randn(shape, generator) * size;
}

template <class Impl>
OneLayer one_layer(std::shared_ptr<Impl> layer, at::IntArrayRef input) {
  OneLayer one{std::make_shared<torch::nn::Module>("root"), layer,
               [layer](const at::Tensor& x) { return layer->forward(x); }, noise(input, 7)};
  one.root->register_module("layer", layer);
  const at::NoGradGuard guard;
  layer->weight.copy_(noise(layer->weight.sizes(), 1, 0.3));
  if (layer->bias.defined()) layer->bias.copy_(noise(layer->bias.sizes(), 2, 2));
  return one;
}

inline const std::vector<std::string>& layer_kinds() {
  static const std::vector<std::string> kinds = {"linear",      "linear_2d",      "linear_1d",       "linear_unbiased",
                                                 "conv1d",      "conv2d",         "conv3d",          "conv2d_groups",
                                                 "conv2d_same", "conv2d_reflect", "conv2d_unbatched"};
  return kinds;
}

inline OneLayer make_layer(const std::string& kind) {
  using namespace torch::nn;
  if (kind == "linear") return one_layer(std::make_shared<LinearImpl>(16, 24), {2, 5, 16});
  if (kind == "linear_2d") return one_layer(std::make_shared<LinearImpl>(16, 24), {5, 16});
  if (kind == "linear_1d") return one_layer(std::make_shared<LinearImpl>(16, 24), {16});
  if (kind == "linear_unbiased")
    return one_layer(std::make_shared<LinearImpl>(LinearOptions(16, 24).bias(false)), {3, 4, 16});
  if (kind == "conv1d")
    return one_layer(std::make_shared<Conv1dImpl>(Conv1dOptions(16, 24, 3).stride(2).padding(1).dilation(2)),
                     {2, 16, 12});
  if (kind == "conv3d")
    return one_layer(
        std::make_shared<Conv3dImpl>(Conv3dOptions(16, 24, {1, 3, 2}).stride({1, 2, 1}).padding({0, 1, 1})),
        {2, 16, 3, 7, 5});
  Conv2dOptions options(16, 24, {3, 2});
  if (kind == "conv2d" || kind == "conv2d_unbatched") options.stride({2, 1}).padding({1, 2}).dilation({1, 2});
  if (kind == "conv2d_groups") options.stride(2).padding(1).groups(2);
  if (kind == "conv2d_same") options.padding(torch::kSame).dilation(2);
  if (kind == "conv2d_reflect") options.padding({1, 2}).padding_mode(torch::kReflect);
  if (kind == "conv2d_unbatched") return one_layer(std::make_shared<Conv2dImpl>(options), {16, 9, 8});
  return one_layer(std::make_shared<Conv2dImpl>(options), {2, 16, 9, 8});
}

inline const std::vector<std::string>& adapter_kinds() {
  static const std::vector<std::string> kinds = {
      "lora", "lora_flat", "lora_mid",     "loha",      "loha_tucker", "lokr",       "lokr_factored", "lokr_tucker",
      "oft",  "oft_bound", "boft",         "glora",     "glora_old",   "glora_core", "ia3_input",     "ia3_output",
      "diff", "dora_rows", "dora_columns", "dora_loha", "dora_oft",    "dora_glora",
  };
  return kinds;
}

/// Tensors of an adapter for a weight [O, I, *kernel] under the stem "layer"; none where the kind has no such weights.
inline NamedTensors adapter_tensors(const std::string& kind, const Shape& weight, uint64_t seed = 100) {
  const int64_t o = weight[0], i = weight[1], r = 4;
  const bool conv = weight.size() > 2;
  const Shape kernel(weight.begin() + 2, weight.end()), ones(kernel.size(), 1);
  const auto shape = [](Shape front, const Shape& tail) {
    front.insert(front.end(), tail.begin(), tail.end());
    return front;
  };
  NamedTensors all;
  const auto add = [&](const std::string& suffix, const Shape& sizes, double size = 0.4, double mean = 0) {
    const at::Tensor values = (noise(sizes, ++seed, size) + mean).contiguous();
    const float* data = values.const_data_ptr<float>();
    all.emplace_back("layer." + suffix, adapter::Tensor{sizes, {data, data + values.numel()}});
  };
  const auto alpha = [&](float value) { all.emplace_back("layer.alpha", adapter::Tensor{{}, {value}}); };
  const auto magnitude = [&](const Shape& sizes) { add("dora_scale", sizes, 0.1, 1.5); };
  const auto lora = [&] {
    add("lora_up.weight", shape({o, r}, ones));
    add("lora_down.weight", shape({r, i}, kernel));
    alpha(2);
  };
  const auto loha = [&] {
    const int64_t cols = adapter::matrix_cols(weight);
    for (const char* name : {"hada_w1_a", "hada_w2_a"}) add(name, {o, r});
    for (const char* name : {"hada_w1_b", "hada_w2_b"}) add(name, {r, cols});
    alpha(3);
  };
  const auto glora = [&] {
    add("a1.weight", {i, r});
    add("a2.weight", {r, i});
    add("b1.weight", {o, r});
    add("b2.weight", shape({r, i}, kernel));
    alpha(2);
  };
  if (kind == "lora") lora();
  if (kind == "lora_flat" && conv) {
    add("lora_up.weight", {o, r});
    add("lora_down.weight", {r, adapter::matrix_cols(weight)});
  }
  if (kind == "lora_flat" && !conv) {  // 1x1 kernels on a linear layer
    add("lora_up.weight", {o, r, 1, 1});
    add("lora_down.weight", {r, i, 1, 1});
  }
  if (kind == "lora_mid" && conv) {
    add("lora_up.weight", shape({o, r}, ones));
    add("lora_down.weight", shape({r, i}, ones));
    add("lora_mid.weight", shape({r, r}, kernel));
    alpha(2);
  }
  if (kind == "loha") loha();
  if (kind == "loha_tucker" && conv) {
    for (const char* name : {"hada_w1_a", "hada_w2_a"}) add(name, {r, o});
    for (const char* name : {"hada_w1_b", "hada_w2_b"}) add(name, {r, i});
    for (const char* name : {"hada_t1", "hada_t2"}) add(name, shape({r, r}, kernel));
  }
  if (kind == "lokr") {
    add("lokr_w1", {4, 2});
    add("lokr_w2", shape({o / 4, i / 2}, kernel));
    alpha(1);
  }
  if (kind == "lokr_factored") {
    add("lokr_w1_a", {4, 3});
    add("lokr_w1_b", {3, 2});
    add("lokr_w2_a", {o / 4, r});
    add("lokr_w2_b", {r, adapter::matrix_cols(weight) / 2});
    alpha(2);
  }
  if (kind == "lokr_tucker" && conv) {
    add("lokr_w1", {4, 2});
    add("lokr_w2_a", {r, o / 4});
    add("lokr_w2_b", {r, i / 2});
    add("lokr_t2", shape({r, r}, kernel));
    alpha(2);
  }
  if (kind == "oft" || kind == "dora_oft") add("oft_blocks", {o / 4, 4, 4});
  if (kind == "oft_bound") {
    add("oft_blocks", {o / 4, 4, 4});
    add("rescale", {o, 1}, 0.2, 1);
    alpha(0.5f);
  }
  if (kind == "boft") {
    add("oft_blocks", {2, o / 4, 4, 4});
    add("rescale", {o, 1}, 0.2, 1);
  }
  if (kind == "glora" || kind == "dora_glora") glora();
  if (kind == "glora_old" && !conv) {
    add("a1.weight", {r, i});
    add("a2.weight", {i, r});
    add("b1.weight", {r, i});
    add("b2.weight", {o, r});
    alpha(2);
  }
  if (kind == "glora_core" && conv) {
    add("a1.weight", {i, r});
    add("a2.weight", {r, i});
    add("b1.weight", {o, r});
    add("b2.weight", shape({r, i}, ones));
    add("bm.weight", shape({r, r}, kernel));
  }
  if (kind == "ia3_input" || kind == "ia3_output") {
    const bool on_input = kind == "ia3_input";
    add("weight", {on_input ? i : o});
    all.emplace_back("layer.on_input", adapter::Tensor{{}, {on_input ? 1.0f : 0.0f}});
  }
  if (kind == "diff") add("diff", weight, 0.1);
  if (kind == "dora_rows" || kind == "dora_columns") lora();
  if (kind == "dora_loha") loha();
  if (kind == "dora_columns") {
    magnitude(shape({1, i}, ones));
  } else if (kind.starts_with("dora_")) {
    magnitude(shape({o, 1}, ones));
  }
  return all;
}

/// All patches of a file merged into a float weight, as `mezzotint merge` does.
inline at::Tensor merged_weight(const AdapterFile& file, const at::Tensor& weight, double strength) {
  at::Tensor copy = weight.detach().to(at::kFloat).contiguous().clone();
  const adapter::Stack stack = stack_of(file, copy.sizes().vec(), strength);
  stack.apply({0, copy.size(0)}, copy.mutable_data_ptr<float>());
  return copy;
}

/// The layer with another weight, which it gets back.
inline at::Tensor forward_with(const OneLayer& one, const at::Tensor& weight) {
  const at::NoGradGuard guard;
  const at::Tensor own = one.weight().clone();
  one.weight().copy_(weight);
  at::Tensor y = one.forward();
  one.weight().copy_(own);
  return y;
}

/// Largest difference by the largest expected value.
inline double difference(const at::Tensor& got, const at::Tensor& expected) {
  EXPECT_EQ(got.sizes(), expected.sizes());
  const at::Tensor far = (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max();
  return (far / expected.to(at::kDouble).abs().max()).item<double>();
}

/// The first adapter of a file as tensors of a dtype, which require gradients.
inline nn::LayerAdapter trainable(const AdapterFile& file, at::ScalarType type) {
  nn::LayerAdapter adapter = nn::read_adapter(file, file.patches().at(0));
  const auto train = [&](at::Tensor& tensor) { tensor = tensor.to(type).requires_grad_(); };
  for (auto& [role, factor] : adapter.factors) train(factor);
  if (adapter.magnitude.defined()) train(adapter.magnitude);
  return adapter;
}

}  // namespace mezzotint::test
