#include <gmock/gmock.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/sequential.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/save.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "support/checkpoint_file.h"
#include "tensor/tensor_case.h"

// Modules of torch and of programs that never heard of us.
namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

struct Net : torch::nn::Module {
  Net() {
    words = register_module("words", torch::nn::Embedding(64, 128));
    in = register_module("in", torch::nn::Linear(128, 256));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({256})));
    tail = register_module("tail", torch::nn::Sequential(torch::nn::Linear(256, 128), torch::nn::Linear(128, 64)));
    statistics = register_module("statistics", torch::nn::BatchNorm1d(64));
  }
  at::Tensor forward(const at::Tensor& tokens) {
    return statistics->forward(tail->forward(norm->forward(in->forward(words->forward(tokens)))));
  }
  torch::nn::Embedding words{nullptr};
  torch::nn::Linear in{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Sequential tail{nullptr};
  torch::nn::BatchNorm1d statistics{nullptr};
};

/// A module with a weight of its own, which only torch's handles lead to.
struct Foreign : torch::nn::Module {
  Foreign() {
    weight = register_parameter("weight", torch::zeros({256, 128}));
    gain = register_parameter("gain", torch::ones({128}));
  }
  at::Tensor weight, gain;
};

class TorchModules : public testing::Test {
 protected:
  TorchModules() {
    net_.eval();
    const at::NoGradGuard guard;
    net_.statistics->running_mean.fill_(0.5);
    save(net_, path("floats"));
    convert::ConvertOptions options;
    options.to = "int8_row";
    options.preset = "none";
    const auto model = Model::open(path("floats"));
    convert::execute(convert::make_plan(model, path("int8"), options, 1), model, {});
  }
  std::filesystem::path path(const std::string& name) const { return folder_ / (name + ".safetensors"); }
  at::Tensor run(Net& net) const {
    net.eval();
    const at::NoGradGuard guard;
    return net.forward(tokens_);
  }

  test::TemporaryFolder folder_;
  Net net_;
  at::Tensor tokens_ = torch::arange(10) * 6;
};

TEST_F(TorchModules, PlainTensorsComeWhereTheyWere) {
  Net other;
  const at::Tensor handle = other.in->weight;
  const LoadReport report = load(other, Model::open(path("floats")), {.compute = at::kFloat});
  EXPECT_THAT(report.missing, IsEmpty());
  EXPECT_THAT(report.unexpected, IsEmpty());
  EXPECT_TRUE(run(other).equal(run(net_)));
  EXPECT_TRUE(handle.equal(net_.in->weight)) << "seen by handles that were there before";
  EXPECT_TRUE(other.in->weight.requires_grad());
  EXPECT_TRUE(other.statistics->running_mean.equal(net_.statistics->running_mean)) << "buffers too";
  load(other, Model::open(path("floats")), {.compute = at::kBFloat16});
  EXPECT_EQ(other.in->weight.scalar_type(), at::kBFloat16);
  EXPECT_EQ(other.statistics->num_batches_tracked.scalar_type(), at::kLong);
}

TEST_F(TorchModules, CodesGoIntoLayersOfTorch) {
  Net other;
  const LoadReport report = load(other, Model::open(path("int8")), {.compute = at::kFloat});
  EXPECT_THAT(report.missing, IsEmpty());
  EXPECT_THAT(report.unexpected, IsEmpty());
  for (const std::string name : {"words.weight", "in.weight", "tail.0.weight", "tail.1.weight"}) {
    EXPECT_TRUE(tensor::is_quantized(other.named_parameters()[name])) << name;
  }
  EXPECT_TRUE(other.in->weight.is_same(other.named_parameters()["in.weight"])) << "the member and the list are one";
  const tensor::DispatchScope scope(tensor::DispatchScope::Fallback::error);
  EXPECT_LT(test::relative(run(other), run(net_)), 0.05);
  EXPECT_FALSE(run(other).equal(run(net_)));
  other.to(at::kBFloat16);
  EXPECT_EQ(other.in->weight.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(tensor::is_quantized(other.in->weight)) << "a dtype is only what the weight is computed in";

  const auto file = Model::open(path("int8"));
  Net again;
  load(again, file, {.compute = at::kFloat});
  EXPECT_THAT(save(again, path("saved"), {.source = &file}).changed, IsEmpty());
  EXPECT_EQ(test::read_raw(path("saved")).metadata, test::read_raw(path("int8")).metadata);
}

TEST_F(TorchModules, CanWaitWithoutMemory) {
  Net other;
  release(other);
  EXPECT_TRUE(other.in->weight.is_meta());
  load(other, Model::open(path("floats")), {.compute = at::kFloat});
  EXPECT_TRUE(other.in->weight.equal(net_.in->weight));
  EXPECT_TRUE(other.named_parameters()["norm.bias"].equal(net_.norm->bias));
}

TEST_F(TorchModules, QuantizesConvolutions) {
  struct Convolved : torch::nn::Module {
    Convolved() { conv = register_module("conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(32, 64, 3))); }
    torch::nn::Conv2d conv{nullptr};
  } original, loaded, again;
  save(original, path("conv"));
  load(loaded, Model::open(path("conv")), {.compute = at::kFloat, .overrides = {{"conv", "int8_row"}}});
  ASSERT_TRUE(tensor::is_quantized(loaded.conv->weight));
  const at::NoGradGuard guard;
  const at::Tensor x = torch::randn({1, 32, 8, 8}), expected = original.conv->forward(x);
  EXPECT_LT(test::relative(loaded.conv->forward(x), expected), 0.05);
  save(loaded, path("conv8"));
  EXPECT_EQ(load(again, Model::open(path("conv8")), {.compute = at::kFloat}).missing.size(), 0u);
  EXPECT_TRUE(again.conv->forward(x).equal(loaded.conv->forward(x))) << "the matrix of a convolution finds its shape";
}

TEST_F(TorchModules, GiveTheMatrixOfAConvolutionItsShape) {
  struct Flat : torch::nn::Module {
    Flat() { conv = register_module("conv", torch::nn::Linear(96, 64)); }
    torch::nn::Linear conv{nullptr};
  } original, flat;
  struct Line : torch::nn::Module {
    Line() { conv = register_module("conv", torch::nn::Conv1d(torch::nn::Conv1dOptions(32, 64, 3))); }
    torch::nn::Conv1d conv{nullptr};
  } line;
  save(original, path("flat"));
  load(flat, Model::open(path("flat")), {.compute = at::kFloat, .overrides = {{"conv", "int8_row"}}});
  save(flat, path("flat8"));
  load(line, Model::open(path("flat8")), {.compute = at::kFloat});
  ASSERT_TRUE(tensor::is_quantized(line.conv->weight));
  const at::NoGradGuard guard;
  const at::Tensor values = tensor::dequantized(flat.conv->weight).view({64, 32, 3}), x = torch::randn({2, 32, 9});
  EXPECT_TRUE(tensor::dequantized(line.conv->weight).equal(values));
  EXPECT_TRUE(line.conv->forward(x).equal(at::conv1d(x, values, line.conv->bias)));
}

TEST_F(TorchModules, OthersTakePlainTensorsOnly) {
  Foreign original;
  {
    const at::NoGradGuard guard;
    original.weight.copy_(test::some_weight(256, 128, at::kFloat));
  }
  save(original, path("foreign"));
  Foreign plain, quantized;
  load(plain, Model::open(path("foreign")), {.compute = at::kFloat});
  EXPECT_TRUE(plain.weight.equal(original.weight));
  const LoadOptions to{.compute = at::kFloat, .overrides = {{".*", "int8_row"}}};
  EXPECT_EQ(load(plain, Model::open(path("foreign")), to).loaded[0].stored, "Float") << "a weight has a layer's name";

  struct Outer : torch::nn::Module {
    Outer() { inner = register_module("inner", std::make_shared<Foreign>()); }
    std::shared_ptr<Foreign> inner;
  } outer;
  save(outer, path("outer"));
  try {
    load(outer, Model::open(path("outer")), to);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "cannot-hold");
    EXPECT_EQ(error.info().tensor, "inner.weight");
  }
  LoadOptions values = to;
  values.dequantize = true;
  load(outer, Model::open(path("outer")), values);
  EXPECT_FALSE(tensor::is_quantized(outer.inner->weight));
}

TEST_F(TorchModules, LegacyFilesStayThatWay) {
  struct Two : torch::nn::Module {
    Two() {
      a = register_module("a", torch::nn::Linear(32, 16));
      b = register_module("b", torch::nn::Linear(torch::nn::LinearOptions(32, 16).bias(false)));
    }
    torch::nn::Linear a{nullptr}, b{nullptr};
  } net, again;
  test::RawFile file;
  for (const std::string layer : {"a", "b"}) {
    file.tensors.emplace_back(layer + ".weight", test::RawTensor{"F8_E4M3", {16, 32}, std::string(512, '\x38')});
    file.tensors.emplace_back(layer + ".scale_weight", test::f32_tensor({1}, {0.5f}));
    file.tensors.emplace_back(layer + ".scale_input", test::f32_tensor({1}, {layer == "a" ? 0.125f : 1.0f}));
  }
  file.tensors.emplace_back("a.bias", test::f32_tensor({16}, std::vector<float>(16, 0.1f)));
  file.tensors.emplace_back("scaled_fp8", test::RawTensor{"F8_E4M3", {2}, std::string(2, '\0')});
  test::write_raw(path("legacy"), file);
  const auto model = Model::open(path("legacy"));
  EXPECT_THAT(load(net, model).unexpected, UnorderedElementsAre("scaled_fp8", "b.scale_input"));
  EXPECT_EQ(tensor::quantized(net.a->weight).product()->input_scale, 0.125f);
  EXPECT_TRUE(tensor::quantized(net.a->weight).product()->full_precision_matrix_mult);
  save(net, path("same"), {.source = &model});
  for (const auto& [name, tensor] : file.tensors) EXPECT_EQ(test::read_raw(path("same")).at(name), tensor) << name;

  // With a changed layer, all are in today's dialect.
  {
    const at::NoGradGuard guard;
    net.b->weight.copy_(tensor::dequantized(net.b->weight) * 2);
  }
  EXPECT_THAT(save(net, path("today"), {.source = &model}).changed, ElementsAre("b"));
  for (const auto& finding : checkpoint::verify(Model::open(path("today"))))
    EXPECT_NE(finding.severity, checkpoint::Severity::error) << finding.subject << ": " << finding.message;
  const test::RawFile today = test::read_raw(path("today"));
  EXPECT_EQ(today.find("scaled_fp8"), nullptr);
  EXPECT_EQ(today.at("a.input_scale"), test::f32_tensor({}, {0.125f}));
  EXPECT_EQ(today.at("a.weight"), file.at("a.weight"));
  load(again, Model::open(path("today")));
  EXPECT_TRUE(tensor::dequantized(again.b->weight).eq(1).all().item<bool>());
  EXPECT_TRUE(tensor::quantized(again.a->weight).product()->full_precision_matrix_mult);
}

}  // namespace
}  // namespace mezzotint::nn
