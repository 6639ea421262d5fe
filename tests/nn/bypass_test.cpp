#include <gmock/gmock.h>
#include <torch/nn/modules/embedding.h>

#include <cmath>

#include "mezzotint/base/error.h"
#include "mezzotint/nn/layer.h"
#include "mezzotint/nn/parameters.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "nn/bypass_case.h"
#include "tensor/tensor_case.h"

// Adapters beside layers give what merged adapters give.
namespace mezzotint::nn {
namespace {

using test::adapter_file;
using test::adapter_tensors;
using test::difference;
using test::make_layer;
using test::OneLayer;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr double kRounding = 2e-6;

class EveryAdapter : public testing::TestWithParam<std::string> {
 protected:
  test::TemporaryFolder folder_, other_;
};
INSTANTIATE_TEST_SUITE_P(Bypass, EveryAdapter, testing::ValuesIn(test::adapter_kinds()),
                         [](const auto& kind) { return kind.param; });

TEST_P(EveryAdapter, GivesWhatMergingGives) {
  const at::NoGradGuard guard;
  for (const std::string& kind : test::layer_kinds()) {
    SCOPED_TRACE(kind);
    const OneLayer one = make_layer(kind);
    const at::Tensor plain = one.forward();
    const auto tensors = adapter_tensors(GetParam(), one.weight().sizes().vec());
    if (tensors.empty()) continue;
    const adapter::AdapterFile file = adapter_file(folder_, tensors);
    if (GetParam() == "boft" && kind == "conv2d_groups") {  // rows of one group in terms of another's inputs
      Bypass bypass(*one.root);
      bypass.attach(file);
      EXPECT_THROW(one.forward(), c10::Error);
      continue;
    }
    for (const double strength : {1.0, 0.5, -0.7}) {
      SCOPED_TRACE(strength);
      const at::Tensor merged = test::merged_weight(file, one.weight(), strength);
      const at::Tensor expected = test::forward_with(one, merged);
      const at::Tensor wrong = test::forward_with(one, test::merged_weight(file, one.weight(), strength * 1.05));
      Bypass bypass(*one.root);
      const auto id = bypass.attach(file, {.strength = strength});
      EXPECT_THAT(bypass.report(id).left_out, IsEmpty());
      EXPECT_THAT(bypass.report(id).attached, ElementsAre("layer.weight"));
      const at::Tensor got = one.forward();
      EXPECT_LT(difference(got, expected), kRounding);
      EXPECT_GT(difference(got, wrong), 1e-3) << "another strength is seen";
      EXPECT_GT(difference(got, plain), 1e-2);
    }
    EXPECT_TRUE(one.forward().equal(plain));
  }
}

TEST_P(EveryAdapter, TakesItsPlaceInAStack) {
  const at::NoGradGuard guard;
  for (const std::string kind : {"linear", "conv2d"}) {
    SCOPED_TRACE(kind);
    const OneLayer one = make_layer(kind);
    const auto tensors = adapter_tensors(GetParam(), one.weight().sizes().vec());
    if (tensors.empty()) continue;
    const adapter::AdapterFile file = adapter_file(folder_, tensors),
                               lora = adapter_file(other_, adapter_tensors("lora", one.weight().sizes().vec(), 55));
    const at::Tensor first = test::merged_weight(lora, one.weight(), 0.8),
                     second = test::merged_weight(file, first, 0.6), third = test::merged_weight(lora, second, -0.4);
    const at::Tensor expected = test::forward_with(one, third);
    Bypass bypass(*one.root);
    bypass.attach(lora, {.strength = 0.8});
    bypass.attach(file, {.strength = 0.6});
    const auto last = bypass.attach(lora, {.strength = -0.4});
    EXPECT_LT(difference(one.forward(), expected), kRounding * 2);
    bypass.enable(last, false);
    const at::Tensor shorter = one.forward();
    bypass.detach_all();
    EXPECT_LT(difference(shorter, test::forward_with(one, second)), kRounding * 2);
  }
}

TEST(Bypass, ScalesStabilizedLokrOfWholeSidesAsMergesDo) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folder;
  const OneLayer one = make_layer("linear");
  auto tensors = adapter_tensors("lokr", one.weight().sizes().vec());
  tensors.back() = {"layer.alpha", {{}, {8}}};
  const auto with = [&](const char* arguments) {
    return adapter_file(folder, tensors, {{"ss_network_module", "lycoris.kohya"}, {"ss_network_args", arguments}});
  };
  const at::Tensor plain = one.forward();
  const auto added = [&](const adapter::AdapterFile& file) {
    const at::Tensor expected = test::forward_with(one, test::merged_weight(file, one.weight(), 1));
    Bypass bypass(*one.root);
    bypass.attach(file);
    at::Tensor got = one.forward();
    EXPECT_LT(difference(got, expected), kRounding);
    return at::sub(got, plain);
  };
  const at::Tensor stabilized = added(with(R"({"rs_lora": "True"})")), ordinary = added(with("{}"));
  EXPECT_LT(difference(stabilized, ordinary * 2), 1e-4);
}

/// d loss / d tensor along a direction, by central differences.
double slope(const std::function<double()>& loss, const at::Tensor& tensor, const at::Tensor& direction) {
  const at::NoGradGuard guard;
  constexpr double kStep = 1e-5;
  tensor.add_(direction, kStep);
  const double up = loss();
  tensor.add_(direction, -2 * kStep);
  const double down = loss();
  tensor.add_(direction, kStep);
  return (up - down) / (2 * kStep);
}

TEST_P(EveryAdapter, GradientsReachEveryParameter) {
  for (const std::string kind : {"linear", "linear_2d", "conv1d", "conv2d", "conv3d", "conv2d_groups"}) {
    SCOPED_TRACE(kind);
    OneLayer one = make_layer(kind);
    const auto tensors = adapter_tensors(GetParam(), one.weight().sizes().vec());
    if (tensors.empty() || (GetParam() == "boft" && kind == "conv2d_groups")) continue;
    one.root->to(at::kDouble);
    one.x = one.x.to(at::kDouble).requires_grad_();
    const LayerAdapter adapter = test::trainable(adapter_file(folder_, tensors), at::kDouble);
    const at::Tensor weight = one.weight();
    Bypass bypass(*one.root);
    const auto id = bypass.attach("layer", adapter, {.strength = 0.7});
    const at::Tensor out = one.forward(), g = test::noise(out.sizes(), 3).to(at::kDouble);
    (out * g).sum().backward();
    const auto loss = [&] { return (one.forward() * g).sum().item<double>(); };
    std::vector<at::Tensor> all = bypass.parameters(id);
    all.push_back(one.x);
    all.push_back(weight);
    for (const at::Tensor& parameter : all) {
      if (adapter.factors.contains("on_input") && parameter.is_same(adapter.factors.at("on_input"))) continue;
      ASSERT_TRUE(parameter.grad().defined());
      const at::Tensor direction = test::noise(parameter.sizes(), 9).to(at::kDouble);
      const double expected = slope(loss, parameter, direction);
      const double got = (parameter.grad() * direction).sum().item<double>();
      EXPECT_NEAR(got, expected, 1e-6 * std::max(1.0, std::abs(expected)));
      EXPECT_GT(std::abs(got * 1.01 - expected), 1e-6 * std::max(1.0, std::abs(expected))) << "a wrong one is seen";
    }
  }
}

class EveryStoredFormat : public testing::TestWithParam<std::string> {
 protected:
  EveryStoredFormat() {
    const at::NoGradGuard guard;
    weight_ = test::some_weight(256, 512, at::kFloat);
    codes_ = tensor::from_float(weight_, GetParam());
    values_ = tensor::dequantized(codes_);
    linear_ = std::make_shared<Linear>(512, 256);
    linear_->exchange("bias", test::noise({256}, 4));
    linear_->exchange("weight", codes_);
    root_.register_module("layer", linear_);
  }
  at::Tensor forward() const { return linear_->forward(x_); }

  test::TemporaryFolder folder_;
  torch::nn::Module root_;
  std::shared_ptr<Linear> linear_;
  at::Tensor weight_, codes_, values_, x_ = test::noise({3, 5, 512}, 5);
};
INSTANTIATE_TEST_SUITE_P(Bypass, EveryStoredFormat, testing::ValuesIn(test::stored_formats()), test::name_of);

TEST_P(EveryStoredFormat, AddsTheFloatDelta) {
  const at::NoGradGuard guard;
  const at::Tensor plain = forward();
  for (const std::string kind : {"lora", "loha", "lokr"}) {
    SCOPED_TRACE(kind);
    const adapter::AdapterFile file = adapter_file(folder_, adapter_tensors(kind, {256, 512}));
    const at::Tensor delta = test::merged_weight(file, at::zeros({256, 512}), 0.5);
    Bypass bypass(root_);
    const auto id = bypass.attach(file, {.strength = 0.5});
    EXPECT_FALSE(linear_->weight.is_same(codes_));
    const at::Tensor expected = at::linear(x_, delta);
    EXPECT_LT(difference(forward() - plain, expected), 5e-6) << "nothing of it is rounded to the format";
    bypass.set_strength(id, 0.55);
    EXPECT_GT(difference(forward() - plain, expected), 5e-2);
    bypass.detach(id);
    EXPECT_TRUE(linear_->weight.is_same(codes_));
    EXPECT_TRUE(forward().equal(plain));
  }
}

TEST_P(EveryStoredFormat, RotatesAndScalesWhatTheLayerGives) {
  const at::NoGradGuard guard;
  const at::Tensor bias = linear_->bias, plain = forward();
  const double own = difference(plain, at::linear(x_, values_, bias));
  for (const std::string kind : {"oft", "boft", "glora", "ia3_input", "dora_rows", "dora_columns"}) {
    SCOPED_TRACE(kind);
    const adapter::AdapterFile file = adapter_file(folder_, adapter_tensors(kind, {256, 512}));
    Bypass bypass(root_);
    bypass.attach(file, {.strength = 0.5});
    const at::Tensor expected = at::linear(x_, test::merged_weight(file, values_, 0.5), bias);
    EXPECT_LT(difference(forward(), expected), 3 * own + 1e-5) << "as far from its decoded weight as without adapters";
    EXPECT_GT(difference(plain, expected), 0.05);
  }
}

TEST_P(EveryStoredFormat, GradientsAreThoseOfTheDecodedLayer) {
  for (const std::string kind : {"lora", "oft", "dora_rows"}) {
    SCOPED_TRACE(kind);
    const adapter::AdapterFile file = adapter_file(folder_, adapter_tensors(kind, {256, 512}));
    const LayerAdapter adapter = test::trainable(file, at::kFloat), other = test::trainable(file, at::kFloat);
    torch::nn::Module decoded_root;
    auto decoded = std::make_shared<Linear>(512, 256);
    decoded->exchange("bias", linear_->bias);
    decoded->exchange("weight", values_);
    decoded_root.register_module("layer", decoded);
    Bypass bypass(root_), reference(decoded_root);
    bypass.attach("layer", adapter);
    reference.attach("layer", other);
    const at::Tensor x = x_.clone().requires_grad_(), y = x_.clone().requires_grad_();
    const at::Tensor g = test::noise({3, 5, 256}, 6);
    (linear_->forward(x) * g).sum().backward();
    (decoded->forward(y) * g).sum().backward();
    const double own = difference(forward(), decoded->forward(x_));
    EXPECT_LT(difference(x.grad(), y.grad()), 2e-2);
    for (const auto& [role, factor] : adapter.factors) {
      ASSERT_TRUE(factor.grad().defined()) << role;
      EXPECT_LT(difference(factor.grad(), other.factors.at(role).grad()), 5 * own + 1e-4) << role;
    }
  }
}

TEST(Bypass, ConvolutionsThatAreStored) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folder;
  for (const int64_t rank : {2, 3}) {
    const Shape shape = rank == 2 ? Shape{64, 32, 3, 3} : Shape{64, 32, 1, 3, 3};
    const at::Tensor codes = tensor::from_float(test::noise(shape, 1, 0.05), "int8_row");
    const at::Tensor values = tensor::dequantized(codes);
    const at::Tensor x = test::noise(rank == 2 ? Shape{1, 32, 8, 8} : Shape{1, 32, 2, 8, 8}, 2);
    for (const std::string kind : {"lora", "loha", "lokr", "oft", "glora", "dora_rows"}) {
      SCOPED_TRACE(kind);
      const adapter::AdapterFile file = adapter_file(folder, adapter_tensors(kind, shape));
      const auto run = [&](auto layer) {
        torch::nn::Module root;
        root.register_module("layer", layer);
        const auto forward = [&](const at::Tensor& weight) {
          EXPECT_TRUE(place_in_torch_module(*layer, "weight", weight));
          return layer->forward(x);
        };
        const at::Tensor expected = forward(test::merged_weight(file, values, 1)), plain = forward(values);
        const double own = difference(forward(codes), plain);
        Bypass bypass(root);
        bypass.attach(file);
        EXPECT_LT(difference(layer->forward(x), expected), 3 * own + 1e-5);
        EXPECT_GT(difference(plain, expected), 0.05);
      };
      if (rank == 2) run(std::make_shared<torch::nn::Conv2dImpl>(torch::nn::Conv2dOptions(32, 64, 3).padding(1)));
      if (rank == 3)
        run(std::make_shared<torch::nn::Conv3dImpl>(torch::nn::Conv3dOptions(32, 64, {1, 3, 3}).padding({0, 1, 1})));
    }
  }
}

TEST(Bypass, DetachesInAnyOrder) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folders[3];
  const OneLayer one = make_layer("linear");
  const at::Tensor weight = one.weight(), plain = one.forward();
  const auto file = [&](const std::string& kind, size_t i) {
    return adapter_file(folders[i], adapter_tensors(kind, {24, 16}, i));
  };
  const auto a = file("lora", 0), b = file("oft", 1), c = file("lokr", 2);
  std::vector<size_t> order = {0, 1, 2};
  do {
    Bypass bypass(*one.root), second(*one.root);
    const std::vector<Bypass::Id> ids = {bypass.attach(a), second.attach(b), bypass.attach(c)};
    for (const size_t i : order) {
      EXPECT_FALSE(one.weight().is_same(weight));
      (i == 1 ? second : bypass).detach(ids[i]);
    }
    EXPECT_TRUE(one.weight().is_same(weight)) << "the very same tensor";
    auto* linear = dynamic_cast<torch::nn::LinearImpl*>(one.layer.get());
    EXPECT_TRUE(linear->weight.is_same(weight)) << "in the member too";
    EXPECT_TRUE(one.forward().equal(plain));
  } while (std::ranges::next_permutation(order).found);
  {
    Bypass bypass(*one.root);
    bypass.attach(a);
  }
  EXPECT_TRUE(one.weight().is_same(weight)) << "its end detaches";
}

TEST(Bypass, SwitchesWithoutAttachingAnew) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folder;
  const OneLayer one = make_layer("linear");
  const at::Tensor plain = one.forward();
  const auto file = adapter_file(folder, adapter_tensors("lora", {24, 16}));
  Bypass bypass(*one.root);
  const auto id = bypass.attach(file), other = bypass.attach(file, {.strength = 0});
  const at::Tensor full = one.forward();
  bypass.set_strength(id, 0.25);
  EXPECT_LT(difference(one.forward() - plain, (full - plain) * 0.25), 1e-5);
  bypass.set_strength(other, 0.75);
  EXPECT_LT(difference(one.forward() - plain, full - plain), 1e-5);
  bypass.set_strength(id, 0);
  bypass.enable(other, false);
  EXPECT_TRUE(one.forward().equal(plain));
  EXPECT_FALSE(bypass.enabled(other));
  EXPECT_EQ(bypass.strength(other), 0.75);
  bypass.set_strength(id, 1);
  EXPECT_TRUE(one.forward().equal(full));
  // What was written into a factor is seen, though factors are kept concatenated.
  bypass.parameters(id)[0].mul_(2);
  EXPECT_LT(difference(one.forward() - plain, (full - plain) * 2), 1e-5);
}

TEST(Bypass, RowsOfFusedLayers) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folder;
  for (const std::string kind : {"lora", "loha", "oft", "glora", "ia3_input", "dora_rows", "dora_columns"}) {
    for (const bool swap : {false, true}) {
      SCOPED_TRACE(kind + (swap ? " swapped" : ""));
      OneLayer one = make_layer("linear");
      const auto file = adapter_file(folder, adapter_tensors(kind, {8, 16}));
      adapter::Stack stack({24, 16});
      const adapter::Target target{"layer", 8, 8, swap};
      stack.add(adapter::load(file, file.patches()[0], {8, 16}), 0.6, target);
      at::Tensor merged = one.weight().clone();
      stack.apply({0, 24}, merged.mutable_data_ptr<float>());
      const at::Tensor expected = test::forward_with(one, merged);
      LayerAdapter adapter = test::trainable(file, at::kFloat);
      adapter.row0 = 8;
      adapter.rows = 8;
      adapter.swap_halves = swap;
      Bypass bypass(*one.root);
      bypass.attach("layer", adapter, {.strength = 0.6});
      EXPECT_LT(difference(one.forward(), expected), kRounding);
    }
  }
}

TEST(Bypass, BiasesOfFiles) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folder;
  const OneLayer one = make_layer("conv2d");
  const at::Tensor plain = one.forward();
  const std::vector<float> diff(24, 0.5f);
  const auto file = adapter_file(folder, {{"layer.diff_b", {{24}, diff}}});
  Bypass bypass(*one.root);
  const auto id = bypass.attach(file, {.strength = 0.5});
  EXPECT_LT(difference(one.forward(), plain + 0.25), kRounding);
  bypass.detach(id);
  EXPECT_TRUE(one.forward().equal(plain));
}

TEST(Bypass, ComputesInTheInputsDtypeWhateverIsStored) {
  const at::NoGradGuard guard;
  const test::TemporaryFolder folder;
  torch::nn::Module root;
  auto linear = std::make_shared<Linear>(512, 256, false);
  root.register_module("layer", linear);
  linear->exchange("weight", tensor::from_float(test::some_weight(256, 512, at::kBFloat16), "int8_row"));
  const auto file = adapter_file(folder, adapter_tensors("lora", {256, 512}));
  const at::Tensor x = test::noise({64, 512}, 5).to(at::kBFloat16), plain = linear->forward(x);
  const at::Tensor h =
      at::linear(x.to(at::kFloat), test::merged_weight(file, at::zeros({256, 512}), 1)) + plain.to(at::kFloat);
  Bypass bypass(root);
  const auto id = bypass.attach(file);
  EXPECT_EQ(linear->forward(x).scalar_type(), at::kBFloat16);
  EXPECT_LT(difference(linear->forward(x), h), 2e-2);
  bypass.detach(id);
  bypass.attach(file, {.float32 = true});
  const at::Tensor exact = linear->forward(x);
  EXPECT_EQ(exact.scalar_type(), at::kBFloat16);
  const auto equal = [&](const at::Tensor& y) { return y.eq(h.to(at::kBFloat16)).to(at::kFloat).mean().item<float>(); };
  EXPECT_GT(equal(exact), 0.99f) << "rounded once";
  bypass.detach_all();
  bypass.attach(file);
  EXPECT_LT(equal(linear->forward(x)), 0.95f) << "and not in between";
}

TEST(Bypass, EverythingElseSeesTheWeightItself) {
  const test::TemporaryFolder folder;
  OneLayer one = make_layer("linear");
  const at::Tensor weight = one.weight();
  const auto file = adapter_file(folder, adapter_tensors("lora", {24, 16}));
  Bypass bypass(*one.root);
  const auto id = bypass.attach(file);
  const at::Tensor stand_in = one.weight();
  EXPECT_EQ(stand_in.sizes(), weight.sizes());
  EXPECT_TRUE((stand_in + 0).equal(weight));
  one.forward().sum().backward();
  EXPECT_TRUE(weight.grad().defined()) << "the base may be trained as well";
  const at::Tensor before = one.forward();
  one.root->to(at::kDouble);
  EXPECT_EQ(one.weight().scalar_type(), at::kDouble);
  EXPECT_EQ(weight.scalar_type(), at::kDouble);
  one.x = one.x.to(at::kDouble);
  EXPECT_LT(difference(one.forward(), before), kRounding);
  EXPECT_THROW(torch::einsum("ij,kj->ik", {one.x[0], one.weight()}), c10::Error) << "nothing goes past the adapters";
  bypass.detach(id);
  EXPECT_TRUE(one.weight().is_same(weight));
  const c10::InferenceMode inference;
  bypass.attach(file);
  EXPECT_LT(difference(one.forward(), before), kRounding);
}

TEST(Bypass, SaysWhatItCannotDo) {
  const test::TemporaryFolder folder;
  struct Net : torch::nn::Module {
    Net() {
      register_module("layer", std::make_shared<torch::nn::EmbeddingImpl>(24, 16));
      register_module("other", std::make_shared<torch::nn::LinearImpl>(16, 24));
    }
  } net;
  Bypass bypass(net);
  const auto name = [&](const test::NamedTensors& tensors) -> std::string {
    try {
      bypass.attach(adapter_file(folder, tensors));
    } catch (const Error& error) {
      return std::string(error.name());
    }
    return "";
  };
  auto tensors = adapter_tensors("lora", {24, 16});
  EXPECT_EQ(name(tensors), "no-bypass") << "an embedding";
  for (auto& [key, tensor] : tensors) key.replace(0, 5, "nowhere");
  EXPECT_EQ(name(tensors), "no-bypass");
  for (const auto& [key, tensor] : adapter_tensors("lora", {24, 16}))
    tensors.emplace_back("other" + key.substr(5), tensor);
  const auto id = bypass.attach(adapter_file(folder, tensors));
  EXPECT_THAT(bypass.report(id).attached, ElementsAre("other.weight"));
  EXPECT_THAT(bypass.report(id).left_out, SizeIs(1));
  LayerAdapter wrong = test::trainable(adapter_file(folder, adapter_tensors("lora", {24, 8})), at::kFloat);
  EXPECT_THROW(bypass.attach("other", wrong), Error);
  wrong.algorithm = "nothing";
  EXPECT_THROW(bypass.attach("other", wrong), Error);
  EXPECT_THROW(bypass.detach(77), c10::Error);
}

}  // namespace
}  // namespace mezzotint::nn
