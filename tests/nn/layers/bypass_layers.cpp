// Layers of torch with adapters beside them, for comparisons with other programs (tests/peers/test_bypass.py):
//
//   bypass_layers CASES.json OUT.safetensors
//
//   model     checkpoint with the layers' weights, in any format
//   inputs    file with one tensor for each layer, by its name
//   dtype     of the computation: fp32 (default) or bf16
//   layers    name -> {"shape": of the weight, "bias": bool, "stride", "padding", "dilation": [...], "groups",
//   "padding_mode"} runs      [[FILE[:STRENGTH], ...], ...]
//
// OUT has the outputs, "RUN/LAYER"; -1 is the module without adapters, before and behind all runs.
#include <c10/core/InferenceMode.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mezzotint/convert/lora_argument.h"
#include "mezzotint/nn/bypass/bypass.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/tensor/files.h"

namespace {

using nlohmann::json;
using Run = std::function<at::Tensor(const at::Tensor&)>;

/// The module that "a.b.c" is a child "c" of, made where there is none.
torch::nn::Module& parent_of(torch::nn::Module& root, const std::string& name) {
  const size_t dot = name.find('.');
  if (dot == std::string::npos) return root;
  const std::string first = name.substr(0, dot);
  if (root.named_children().find(first) == nullptr) root.register_module(first, std::make_shared<torch::nn::Module>());
  return parent_of(*root.named_children()[first], name.substr(dot + 1));
}

template <class Impl>
Run add(torch::nn::Module& root, const std::string& name, std::shared_ptr<Impl> layer) {
  parent_of(root, name).register_module(name.substr(name.rfind('.') + 1), layer);
  return [layer](const at::Tensor& x) { return layer->forward(x); };
}

template <size_t kRank>
torch::nn::ConvOptions<kRank> convolution(const json& facts) {
  const auto shape = facts.at("shape").get<std::vector<int64_t>>();
  const int64_t groups = facts.value("groups", int64_t{1});
  const auto expanded = [&](const char* key, int64_t otherwise) {
    return torch::ExpandingArray<kRank>(facts.value(key, std::vector<int64_t>(kRank, otherwise)));
  };
  torch::nn::ConvOptions<kRank> options(shape[1] * groups, shape[0],
                                        torch::ExpandingArray<kRank>(std::vector(shape.begin() + 2, shape.end())));
  options.stride(expanded("stride", 1)).padding(expanded("padding", 0)).dilation(expanded("dilation", 1));
  options.groups(groups).bias(facts.value("bias", false));
  if (facts.value("padding_mode", "zeros") == "reflect") options.padding_mode(torch::kReflect);
  return options;
}

Run make_layer(torch::nn::Module& root, const std::string& name, const json& facts) {
  using namespace torch::nn;
  const auto shape = facts.at("shape").get<std::vector<int64_t>>();
  switch (shape.size()) {
    case 2:
      return add(root, name,
                 std::make_shared<LinearImpl>(LinearOptions(shape[1], shape[0]).bias(facts.value("bias", false))));
    case 3:
      return add(root, name, std::make_shared<Conv1dImpl>(convolution<1>(facts)));
    case 4:
      return add(root, name, std::make_shared<Conv2dImpl>(convolution<2>(facts)));
    default:
      return add(root, name, std::make_shared<Conv3dImpl>(convolution<3>(facts)));
  }
}

void run(const std::string& path, const std::string& output) {
  const json cases = json::parse(std::ifstream(path));
  const auto type = cases.value("dtype", "fp32") == "fp32" ? at::kFloat : at::kBFloat16;
  torch::nn::Module root;
  std::map<std::string, Run> layers;
  for (const auto& [name, facts] : cases.at("layers").items()) layers.emplace(name, make_layer(root, name, facts));
  mezzotint::nn::load(root, mezzotint::checkpoint::Model::open(cases.at("model").get<std::string>()),
                      {.compute = type});
  const auto inputs = mezzotint::tensor::read_tensors(cases.at("inputs").get<std::string>());

  std::map<std::string, at::Tensor> outputs;
  const auto forward = [&](const std::string& prefix) {
    for (const auto& [name, layer] : layers)
      outputs.insert_or_assign(prefix + "/" + name, layer(inputs.at(name).to(type)).contiguous());
  };
  forward("-1");
  int index = 0;
  for (const json& adapters : cases.at("runs")) {
    mezzotint::nn::Bypass bypass(root);
    for (const json& text : adapters) {
      const auto lora = mezzotint::convert::parse_lora(text);
      const auto id = bypass.attach(mezzotint::adapter::AdapterFile::open(lora.file), {.strength = lora.strength});
      for (const auto& [target, reason] : bypass.report(id).left_out)
        std::fprintf(stderr, "left out %s: %s\n", target.c_str(), reason.c_str());
    }
    forward(std::to_string(index++));
  }
  const auto before = outputs;
  forward("-1");
  for (const auto& [name, layer] : layers)
    TORCH_CHECK(outputs.at("-1/" + name).equal(before.at("-1/" + name)), name, " is not what it was before");
  mezzotint::tensor::write_tensors(output, outputs, true);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    const c10::InferenceMode guard;
    run(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
