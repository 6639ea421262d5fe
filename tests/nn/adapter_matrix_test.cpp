// Adapters beside layers in docs/adapters.md: every algorithm on every format, by what the program has. What comes out
// is held against the float64 layer whose decoded weight the closed form merged, gradients against autograd of the
// float64 layer, and those against differences.
#include <ATen/CPUGeneratorImpl.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <functional>

#include "adapter/adapter_variants.h"
#include "adapter/golden_cases.h"
#include "adapter/matrix_axes.h"
#include "mezzotint/base/error.h"
#include "mezzotint/nn/bypass/bypass.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/parameters.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "support/matrix.h"
#include "support/reference_file.h"

namespace mezzotint::nn {
namespace {

constexpr const char* kFloat64 = "float64";
// Half steps of the dtype, as a relative Frobenius norm: one rounding is some 0.4 of them, and there are a few.
constexpr double kOutputSteps = 6, kGradientSteps = 32;
// Over the error of the layer alone, which rounds its inputs as its format does.
constexpr double kOutputShare = 1.5, kGradientShare = 3;
constexpr double kSlope = 1e-6;

at::Tensor normal(at::IntArrayRef shape, uint64_t seed, double size = 1) {
  return torch::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble) * size;
}

double relative_norm(const at::Tensor& got, const at::Tensor& expected) {
  EXPECT_EQ(got.sizes(), expected.sizes());
  return ((got.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

/// A torch module "layer" in a root, with weight and bias put in place.
struct Site {
  std::shared_ptr<torch::nn::Module> root;
  std::function<at::Tensor(const at::Tensor&)> forward;
};

template <class Impl>
Site site_of(std::shared_ptr<Impl> layer, const at::Tensor& weight, const at::Tensor& bias) {
  EXPECT_TRUE(place_in_torch_module(*layer, "weight", weight));
  EXPECT_TRUE(place_in_torch_module(*layer, "bias", bias));
  Site site{std::make_shared<torch::nn::Module>("root"), [layer](const at::Tensor& x) { return layer->forward(x); }};
  site.root->register_module("layer", layer);
  return site;
}

Site make_site(const std::string& kind, const at::Tensor& weight, const at::Tensor& bias) {
  using namespace torch::nn;
  const int64_t o = weight.size(0), i = weight.size(1);
  const std::vector<int64_t> k = weight.sizes().slice(2).vec();
  if (kind == "linear") return site_of(std::make_shared<LinearImpl>(i, o), weight, bias);
  if (kind == "conv1d")
    return site_of(std::make_shared<Conv1dImpl>(Conv1dOptions(i, o, k[0]).stride(2).padding(2).dilation(2)), weight,
                   bias);
  if (kind == "conv2d") {
    const auto options = Conv2dOptions(i, o, {k[0], k[1]}).stride({2, 1}).padding({1, 2}).dilation({1, 2});
    return site_of(std::make_shared<Conv2dImpl>(options), weight, bias);
  }
  const auto options = Conv3dOptions(i, o, {k[0], k[1], k[2]}).stride({1, 2, 1}).padding({0, 1, 1});
  return site_of(std::make_shared<Conv3dImpl>(options), weight, bias);
}

/// So few positions that convolutions multiply codes with patches of the input (tensor/convolution.h), as linear
/// layers do, and do not decode the weight.
at::Tensor inputs_for(const std::string& kind, int64_t channels) {
  if (kind == "linear") return normal({3, 7, channels}, 5);
  if (kind == "conv1d") return normal({2, channels, 13}, 5);
  return kind == "conv2d" ? normal({1, channels, 4, 3}, 5) : normal({1, channels, 3, 4, 3}, 5);
}

at::Tensor merged(const test::ClosedForm& form, const at::Tensor& weight, double strength) {
  const at::Tensor flat = weight.to(at::kDouble).contiguous();
  const double* data = flat.const_data_ptr<double>();
  return torch::tensor(form.merge({data, data + flat.numel()}, strength), at::kDouble).reshape(weight.sizes());
}

/// What an adapter file holds, as factors that want gradients.
LayerAdapter factors_of(const adapter::AdapterFile& file, at::ScalarType type) {
  LayerAdapter adapter = read_adapter(file, file.patches().at(0));
  for (auto& [role, factor] : adapter.factors) factor = factor.to(type).requires_grad_();
  if (adapter.magnitude.defined()) adapter.magnitude = adapter.magnitude.to(type).requires_grad_();
  return adapter;
}

/// d sum(g * layer(x)) by x and by everything in the adapter; undefined where it reaches nothing.
std::vector<at::Tensor> gradients(const Site& site, const at::Tensor& input, LayerAdapter adapter, double strength,
                                  const at::Tensor& g) {
  Bypass bypass(*site.root);
  const auto id = bypass.attach("layer", adapter, {.strength = strength});
  const at::Tensor x = input.detach().clone().requires_grad_();
  (site.forward(x) * g.to(x.scalar_type())).sum().backward();
  std::vector<at::Tensor> all = {x.grad()};
  for (const at::Tensor& parameter : bypass.parameters(id)) all.push_back(parameter.grad());
  return all;
}

/// The worst of several gradients. Those that are zero (IA3's choice of a side) count for nothing.
double worst_of(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& expected) {
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!expected[i].defined() || expected[i].norm().item<double>() == 0) continue;
    EXPECT_TRUE(got.at(i).defined());
    if (got[i].defined()) worst = std::max(worst, relative_norm(got[i], expected[i]));
  }
  return worst;
}

/// The codes of a matrix as those of a layer with this kernel, which is how load() gives them to convolutions. With as
/// many inputs as outputs some files have two meanings: the kernel gets smaller then.
at::Tensor as_kernel(const at::Tensor& matrix, Shape shape) {
  shape[0] = matrix.size(0);
  if (shape.size() > 2 && matrix.size(1) / adapter::kernel_size(shape) == shape[0]) shape[2] /= 2;
  shape[1] = matrix.size(1) / adapter::kernel_size(shape);
  tensor::StoredWeight stored = *tensor::quantized(matrix).stored();
  if (shape.size() > 2) stored.convolution = shape;
  return tensor::make_tensor(std::make_shared<const tensor::StoredWeight>(std::move(stored)), at::kFloat);
}

class BypassMatrix : public testing::TestWithParam<std::string> {
 protected:
  /// On one thread: layers are so small that several would only wait for one another.
  BypassMatrix() { at::set_num_threads(1); }
  ~BypassMatrix() override { at::set_num_threads(threads_); }

  /// One adapter beside one layer.
  struct Case {
    std::string kind, algorithm;
    test::NamedTensors tensors;  ///< of "layer"
    std::map<std::string, std::string> metadata;
    double strength = 1, other = 0.5;
    at::Tensor stored, values;  ///< the weight, and what it decodes to in float64
    at::Tensor bias, x;
    double unit = 0;  ///< what errors are counted in
    double output_limit = 0, gradient_limit = 0;
  };
  void run(const Case& one);
  /// Central differences along one direction for every factor and the input; in kSlope.
  double slope_error(const Case& one, const adapter::AdapterFile& file) const;
  void run_floats(at::ScalarType type, double half_step);
  void run_stored(const std::string& kind, const at::Tensor& stored);
  /// The first layer of a format's reference bytes: formats that are only read make no others.
  at::Tensor reference_weight(const formats::Format& format) const;

  const int threads_ = at::get_num_threads();
  test::Matrix matrix_{"bypass", GetParam()};
  test::TemporaryFolder folder_;
};

void BypassMatrix::run(const Case& one) {
  const Shape shape = one.values.sizes().vec();
  const adapter::AdapterFile file = test::adapter_file(folder_, one.tensors, one.metadata);
  const Site site = make_site(one.kind, one.stored, one.bias);
  const at::Tensor x64 = one.x.to(at::kDouble), bias64 = one.bias.to(at::kDouble);
  const test::ClosedForm form(one.tensors, "layer", shape, !one.metadata.empty());
  const auto exact = [&](double strength) {
    const at::NoGradGuard guard;
    return make_site(one.kind, merged(form, one.values, strength), bias64).forward(x64);
  };
  const at::Tensor expected = exact(one.strength), plain = site.forward(one.x).detach();
  {
    Bypass bypass(*site.root);
    try {
      // From a file factors are float32.
      const auto id = GetParam() == kFloat64
                          ? bypass.attach("layer", factors_of(file, at::kDouble), {.strength = one.strength})
                          : bypass.attach(file, {.strength = one.strength});
      const at::NoGradGuard guard;
      const at::Tensor got = site.forward(one.x);
      matrix_.measure(one.kind, one.algorithm, "output", relative_norm(got, expected) / one.unit, one.output_limit);
      EXPECT_GT(relative_norm(plain, expected), one.unit * one.output_limit) << "a layer without it is seen";
      bypass.set_strength(id, one.other);
      EXPECT_GT(relative_norm(site.forward(one.x), expected), one.unit * one.output_limit) << "another strength, too";
    } catch (const Error& error) {
      if (error.name() != "no-bypass") throw;
      // Of files, the problem is that nothing is left; what was found is why.
      matrix_.leave_out(one.kind, one.algorithm, GetParam() == kFloat64 ? error.info().problem : error.info().found);
      return;
    }
  }
  EXPECT_TRUE(site.forward(one.x).equal(plain)) << "detached";
  const at::Tensor g = normal(expected.sizes(), 6);
  const Site reference = make_site(one.kind, one.values, bias64);
  const at::ScalarType type = one.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto wanted = gradients(reference, x64, factors_of(file, at::kDouble), one.strength, g);
  if (GetParam() == kFloat64) {
    matrix_.measure(one.kind, one.algorithm, "gradient", slope_error(one, file), 1);
    return;
  }
  const auto got = gradients(site, one.x, factors_of(file, type), one.strength, g);
  matrix_.measure(one.kind, one.algorithm, "gradient", worst_of(got, wanted) / one.unit, one.gradient_limit);
  const auto wrong = gradients(reference, x64, factors_of(file, at::kDouble), one.other, g);
  EXPECT_GT(worst_of(got, wrong), one.unit * one.gradient_limit) << "gradients of another strength are seen";
}

double BypassMatrix::slope_error(const Case& one, const adapter::AdapterFile& file) const {
  constexpr double kStep = 1e-5;
  const Site site = make_site(one.kind, one.stored, one.bias);
  Bypass bypass(*site.root);
  const auto id = bypass.attach("layer", factors_of(file, at::kDouble), {.strength = one.strength});
  const at::Tensor x = one.x.clone().requires_grad_(), y = site.forward(x), g = normal(y.sizes(), 6);
  (y * g).sum().backward();
  std::vector<at::Tensor> all = bypass.parameters(id);
  all.push_back(x);
  double worst = 0;
  for (const at::Tensor& parameter : all) {
    if (!parameter.grad().defined()) continue;
    const at::NoGradGuard guard;
    const at::Tensor direction = normal(parameter.sizes(), 9);
    const auto at_step = [&](double step) {
      parameter.add_(direction, step);
      const double loss = (site.forward(x) * g).sum().item<double>();
      parameter.add_(direction, -step);
      return loss;
    };
    const double expected = (at_step(kStep) - at_step(-kStep)) / (2 * kStep);
    const double got = (parameter.grad() * direction).sum().item<double>(), size = std::max(1.0, std::abs(expected));
    worst = std::max(worst, std::abs(got - expected) / size / kSlope);
    EXPECT_GT(std::abs(got * 1.01 - expected) / size, kSlope) << "a gradient that is off by a hundredth is seen";
  }
  return worst;
}

void BypassMatrix::run_floats(at::ScalarType type, double half_step) {
  for (const test::GoldenMerge& golden : test::golden_merges()) {
    SCOPED_TRACE(golden.name);
    Case one{golden.kind, golden.algorithm, golden.tensors, golden.metadata};
    for (auto& [key, tensor] : one.tensors) key = "layer" + key.substr(1);
    one.strength = golden.strength;
    one.other = golden.strength * 2;
    one.stored = torch::tensor(golden.weight.values).reshape(golden.weight.shape).to(type);
    one.values = one.stored.to(at::kDouble);
    one.bias = normal({one.values.size(0)}, 4, 2).to(type);
    one.x = inputs_for(one.kind, one.values.size(1)).to(type);
    one.unit = half_step;
    one.output_limit = kOutputSteps;
    one.gradient_limit = kGradientSteps;
    run(one);
  }
}

void BypassMatrix::run_stored(const std::string& kind, const at::Tensor& stored) {
  const at::Tensor values = tensor::dequantized(stored, at::kFloat), flat = values.flatten();
  Case one{kind, ""};
  one.stored = stored;
  one.values = values.to(at::kDouble);
  one.bias = normal({values.size(0)}, 4, 0.1).to(at::kFloat);
  one.x = inputs_for(kind, values.size(1)).to(at::kFloat);
  const at::Tensor own = make_site(kind, stored, one.bias).forward(one.x),
                   exact = make_site(kind, one.values, one.bias.to(at::kDouble)).forward(one.x.to(at::kDouble));
  one.unit = std::max(relative_norm(own, exact), 0x1p-20);
  one.output_limit = kOutputShare;
  one.gradient_limit = kGradientShare;
  const float* data = flat.const_data_ptr<float>();
  test::AdapterVariants make("layer", values.sizes().vec(), {data, data + flat.numel()}, 1);
  for (const std::string& algorithm : test::matrix_algorithms())
    for (const test::AdapterVariant& variant : make.of(algorithm)) {
      SCOPED_TRACE(kind + " " + algorithm + " " + variant.name);
      one.algorithm = algorithm;
      one.tensors = variant.tensors;
      run(one);
    }
}

at::Tensor BypassMatrix::reference_weight(const formats::Format& format) const {
  const nlohmann::json reference = test::reference_cases(format.name).at(0);
  const Shape shape = reference["source"]["shape"];
  torch::nn::Module root;
  const auto layer = std::make_shared<torch::nn::LinearImpl>(shape[1], shape[0]);
  root.register_module("layer", layer);
  test::write_raw(folder_ / "model.safetensors", test::reference_file(reference, "layer"));
  load(root, checkpoint::Model::open(folder_ / "model.safetensors"), {.compute = at::kFloat});
  return layer->weight;
}

TEST_P(BypassMatrix, EveryCell) {
  if (GetParam() == kFloat64) {
    run_floats(at::kDouble, 0x1p-53);
    return matrix_.finish(test::matrix_kinds(), test::matrix_algorithms());
  }
  const formats::Selection selection = formats::select_format(GetParam());
  const formats::Format& format = *selection.format;
  if (!format.quantized) {
    const DType dtype = format.describe({{1, 1}}, selection.options).layout->tensors[0].dtype;
    const at::ScalarType type = tensor::scalar_type(dtype);
    run_floats(type, type == at::kFloat ? 0x1p-24 : type == at::kHalf ? 0x1p-11 : 0x1p-8);
    return matrix_.finish(test::matrix_kinds(), test::matrix_algorithms());
  }
  at::Tensor stored;
  try {
    stored = format.writable
                 ? tensor::from_float(normal(test::matrix_shape("linear"), 1, 0.05).to(at::kFloat), GetParam())
                 : reference_weight(format);
  } catch (const Error& error) {
    ASSERT_EQ(error.name(), "shape-refused");
    for (const std::string& kind : test::matrix_kinds())
      for (const std::string& algorithm : test::matrix_algorithms())
        matrix_.leave_out(kind, algorithm, error.info().problem);
  }
  for (const std::string& kind : test::matrix_kinds())
    if (stored.defined()) run_stored(kind, as_kernel(stored, test::matrix_shape(kind)));
  matrix_.finish(test::matrix_kinds(), test::matrix_algorithms());
}

std::vector<std::string> bypass_rows() {
  std::vector<std::string> rows = test::matrix_formats();
  rows.insert(rows.begin(), kFloat64);
  return rows;
}

INSTANTIATE_TEST_SUITE_P(All, BypassMatrix, testing::ValuesIn(bypass_rows()),
                         [](const auto& format) { return format.param; });

TEST(BypassMatrixRows, AreThoseOfTheProgram) {
  if (std::getenv("MEZZOTINT_MATRIX") != nullptr) GTEST_SKIP() << "the document is about to be written";
  const auto rows = bypass_rows();
  EXPECT_EQ(test::documented_formats("bypass"), std::set<std::string>(rows.begin(), rows.end()));
}

}  // namespace
}  // namespace mezzotint::nn
