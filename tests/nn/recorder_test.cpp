#include "mezzotint/nn/recorder.h"

#include <ATen/autocast_mode.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <torch/nn/modules/linear.h>
#include <torch/types.h>

#include <cmath>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/nn/bypass/bypass.h"
#include "mezzotint/nn/input_scales.h"
#include "mezzotint/nn/layer.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/save.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "nn/wan_file.h"
#include "tensor/tensor_case.h"

namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using convert::LayerStatistics;
using testing::ElementsAre;
using testing::IsEmpty;

at::Tensor random(at::IntArrayRef shape, uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return torch::randn(shape, generator) * torch::linspace(0.01, 3, shape.back());
}

/// Statistics of rows x [T, K] by the formulas of docs/calibration.md, in double.
struct Oracle {
  explicit Oracle(const at::Tensor& inputs) : x(inputs.to(at::kDouble).reshape({-1, inputs.size(-1)})) {}

  at::Tensor histogram() const {
    at::Tensor counts = torch::zeros({514}, torch::kLong);
    const at::Tensor magnitudes = x.abs().contiguous();
    const auto* values = magnitudes.const_data_ptr<double>();
    for (int64_t i = 0; i < magnitudes.numel(); ++i) {
      const int e = values[i] == 0 ? -100 : std::ilogb(values[i]);
      const int m = static_cast<int>(std::floor((std::ldexp(values[i], -e) - 1) * 8));
      counts[e < -40 ? 0 : e >= 24 ? 513 : 1 + 8 * (e + 40) + m] += 1;
    }
    return counts;
  }
  void expect(const LayerStatistics& got, double tolerance = 1e-6) const {
    EXPECT_EQ(got.tokens, static_cast<uint64_t>(x.size(0)));
    EXPECT_EQ(got.amax, x.abs().max().item<float>());
    EXPECT_TRUE(torch::tensor(got.channel_amax).equal(x.abs().amax(0).to(at::kFloat)));
    EXPECT_LT((torch::tensor(got.channel_mean) - x.mean(0)).abs().max().item<double>(), tolerance);
    EXPECT_LT(test::relative(torch::tensor(got.second_moment), x.square().mean(0)), tolerance);
    EXPECT_TRUE(torch::tensor(got.histogram).equal(histogram()));
  }

  at::Tensor x;
};

struct RecordedNet : torch::nn::Module {
  RecordedNet() {
    first = register_module("first", torch::nn::Linear(128, 256));
    second = register_module("second", std::make_shared<Linear>(256, 128));
    spare = register_module("spare", torch::nn::Linear(128, 256));
    second->exchange("weight", test::some_weight(128, 256, at::kFloat));
    second->exchange("bias", torch::zeros({128}));
  }
  at::Tensor forward(const at::Tensor& x) { return second->forward(first->forward(x)); }
  torch::nn::Linear first{nullptr}, spare{nullptr};
  std::shared_ptr<Linear> second;
};

class Recorder : public testing::Test {
 protected:
  Recorder() { torch::manual_seed(1); }
  std::filesystem::path path(const std::string& name) const { return folder_ / (name + ".safetensors"); }

  test::TemporaryFolder folder_;
};

TEST_F(Recorder, StatisticsAreThoseOfTheInputs) {
  RecordedNet net;
  const at::Tensor matrix = random({70, 128}, 1), batch = random({2, 3, 5, 128}, 2);
  std::vector<at::Tensor> hidden;
  CalibrationRecorder recorder(net, {.gram = true});
  for (const at::Tensor& x : {matrix, batch}) {  // torch's layer calls addmm for one, matmul for the other
    const at::Tensor y = net.first->forward(x);
    hidden.push_back(y.detach().reshape({-1, 256}));
    net.second->forward(y).sum().backward();
  }
  recorder.stop();
  net.forward(matrix);  // is not seen
  EXPECT_THAT(recorder.layers(), ElementsAre("first", "second"));
  EXPECT_THAT(recorder.unused(), ElementsAre("spare"));
  EXPECT_EQ(recorder.skipped(), 0u);
  const Oracle first(torch::cat({matrix, batch.reshape({-1, 128})})), second(torch::cat(hidden));
  first.expect(recorder.statistics("first"));
  second.expect(recorder.statistics("second"));
  EXPECT_THROW(recorder.statistics("spare"), Error);

  LayerStatistics wrong = recorder.statistics("first");
  EXPECT_GT(test::relative(torch::tensor(wrong.second_moment), first.x.abs().mean(0)), 0.1) << "a control";

  recorder.save(path("calibration"));
  const auto read = convert::Calibration::open({path("calibration")});
  first.expect(*read.find("first"));
  std::vector<float> gram(128 * 128);
  ASSERT_TRUE(read.read_gram_rows("first", 0, 128, gram.data()));
  const at::Tensor expected = (first.x.t().mm(first.x) / first.x.size(0)).tril();
  EXPECT_LT(test::relative(torch::tensor(gram).reshape({128, 128}), expected), 1e-5);
}

TEST_F(Recorder, SquareWeightsAndGradientsAreToldApart) {
  RecordedNet net;
  net.first = net.replace_module("first", torch::nn::Linear(128, 128));
  const at::Tensor x = random({8, 128}, 3).set_requires_grad(true), g = random({8, 128}, 4);
  const CalibrationRecorder recorder(net);
  at::linear(x, net.first->weight).backward(g);  // g W is a product with the weight, too
  EXPECT_EQ(recorder.statistics("first").tokens, 8u);
  Oracle(x.detach()).expect(recorder.statistics("first"));
  at::mm(x.detach(), net.first->weight);
  EXPECT_EQ(recorder.statistics("first").tokens, 8u);
  at::mm(x.detach(), net.first->weight.t());
  EXPECT_EQ(recorder.statistics("first").tokens, 16u);
}

TEST_F(Recorder, LayersWithAdapters) {
  const at::NoGradGuard guard;
  RecordedNet net;
  const at::Tensor x = random({9, 128}, 3);
  const auto lora = [](int64_t outputs, int64_t inputs) {
    return LayerAdapter{
        .factors = {{"lora_up", random({outputs, 4}, 6) * 0.02}, {"lora_down", random({4, inputs}, 7)}}};
  };
  const CalibrationRecorder before(net);
  Bypass bypass(net);
  bypass.attach("first", lora(256, 128));
  bypass.attach("second", lora(128, 256));
  const CalibrationRecorder after(net);
  const at::Tensor hidden = net.first->forward(x);
  net.second->forward(hidden);
  for (const CalibrationRecorder* recorder : {&before, &after}) {
    EXPECT_THAT(recorder->layers(), ElementsAre("first", "second"));
    Oracle(x).expect(recorder->statistics("first"));
    Oracle(hidden).expect(recorder->statistics("second"));
  }
}

TEST_F(Recorder, QuantizedWeightsAndOtherDtypes) {
  RecordedNet net;
  const at::Tensor x = random({33, 256}, 5);
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    RecordedNet quantized;
    quantized.second->exchange("weight", tensor::from_float(test::some_weight(128, 256, type), "int8_row"));
    quantized.second->exchange("bias", torch::zeros({128}, type));
    const CalibrationRecorder recorder(quantized);
    quantized.second->forward(x.to(type));
    Oracle(x.to(type)).expect(recorder.statistics("second"));
  }
  at::autocast::set_autocast_enabled(at::kCPU, true);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  {
    const CalibrationRecorder recorder(net);
    net.forward(random({4, 9, 128}, 6));
    Oracle(random({4, 9, 128}, 6)).expect(recorder.statistics("first"));
    EXPECT_EQ(recorder.statistics("second").tokens, 36u);
  }
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
}

TEST_F(Recorder, LeavesOutWhatIsNotFinite) {
  RecordedNet net;
  at::Tensor x = random({6, 128}, 7);
  x[1][5] = INFINITY;
  x[3][0] = NAN;
  x[4][127] = 1e30;
  const CalibrationRecorder recorder(net);
  net.forward(x);
  EXPECT_EQ(recorder.skipped(), 6u) << "of both layers";
  Oracle(x.index_select(0, torch::tensor({0, 2, 5}))).expect(recorder.statistics("first"));
}

TEST_F(Recorder, RecordersEndWhateverHappens) {
  RecordedNet net;
  const at::Tensor x = random({4, 128}, 8);
  EXPECT_FALSE(at::hasThreadLocalCallbacks());
  try {
    const CalibrationRecorder recorder(net);
    net.first->forward(x);
    net.first->forward(random({4, 100}, 9));
    FAIL();
  } catch (const c10::Error&) {
  }
  EXPECT_FALSE(at::hasThreadLocalCallbacks());
  const CalibrationRecorder outer(net);
  try {
    net.first->forward(random({4, 100}, 9));
  } catch (const c10::Error&) {
  }
  {
    const CalibrationRecorder inner(net, {.layers = {"fir.*"}});
    net.forward(x);
    EXPECT_THAT(inner.layers(), ElementsAre("first"));
    EXPECT_THAT(inner.unused(), IsEmpty());
  }
  net.forward(x);
  EXPECT_EQ(outer.statistics("first").tokens, 8u) << "a failed product hides none of those after it";
  const CalibrationRecorder unused(net);
  EXPECT_THROW(unused.save(path("none")), Error);
}

TEST_F(Recorder, FilesMergeLikeOneRecording) {
  RecordedNet net;
  std::vector<at::Tensor> batches = {random({40, 128}, 10), random({300, 128}, 11)};
  for (size_t i = 0; i < 2; ++i) {
    const CalibrationRecorder recorder(net, {.gram = true});
    net.forward(batches[i]);
    recorder.save(path(std::to_string(i)), "model.diffusion_model.");
  }
  const auto merged = convert::Calibration::open({path("0"), path("1")});
  const Oracle both(torch::cat(batches));
  both.expect(*merged.find("first", 128));
  std::vector<float> gram(128 * 128);
  ASSERT_TRUE(merged.read_gram_rows("first", 0, 128, gram.data()));
  EXPECT_LT(test::relative(torch::tensor(gram).reshape({128, 128}), (both.x.t().mm(both.x) / 340).tril()), 1e-5);
}

TEST_F(Recorder, AWholeModelUpToInputScales) {
  test::write_wan(path("model"));
  const auto run = [](models::wan::Transformer& model) {
    const at::NoGradGuard guard;
    const test::WanInputs inputs;
    return model.forward(inputs.x, inputs.timestep, inputs.text);
  };
  const auto file = Model::open(path("model"));
  models::wan::Transformer model(test::small_wan()), quantized(test::small_wan()), again(test::small_wan());
  load(model, file, {.compute = at::kFloat});
  CalibrationRecorder recorder(model);
  run(model);
  recorder.stop();
  EXPECT_EQ(recorder.layers().size(), 2u * 10 + 2 + 2 + 1 + 1) << "blocks, text, time, its projection, head";
  recorder.save(path("calibration"));

  // What the converter makes of the file.
  convert::ConvertOptions options;
  options.to = "float8_e4m3fn";
  options.calibration = {path("calibration").string()};
  const convert::Plan plan = convert::make_plan(file, path("fp8"), options, 1);
  convert::execute(plan, file, {});
  const test::RawFile converted = test::read_raw(path("fp8"));
  EXPECT_EQ(converted.at("blocks.1.ffn.2.input_scale"),
            test::f32_tensor({}, {recorder.statistics("blocks.1.ffn.2").amax / 448}));

  // The same scales for a model that is loaded.
  test::convert_file(path("model"), path("plain"), "float8_e4m3fn");
  const auto plain = Model::open(path("plain"));
  load(quantized, plain, {.compute = at::kFloat});
  const at::Tensor dynamic = run(quantized);
  const InputScaleReport report = set_input_scales(quantized, recorder);
  EXPECT_EQ(report.set.size(), plain.layers().size());
  EXPECT_THAT(report.without, IsEmpty());
  EXPECT_FALSE(run(quantized).equal(dynamic)) << "static scales are used";
  EXPECT_EQ(save(quantized, path("scaled"), {.source = &plain}).changed.size(), report.set.size());
  const test::RawFile scaled = test::read_raw(path("scaled"));
  for (const auto& layer : report.set) {
    EXPECT_EQ(scaled.at(layer + ".input_scale"), converted.at(layer + ".input_scale")) << layer;
    EXPECT_EQ(scaled.at(layer + ".weight"), test::read_raw(path("plain")).at(layer + ".weight")) << layer;
  }
  load(again, Model::open(path("scaled")), {.compute = at::kFloat});
  EXPECT_TRUE(run(again).equal(run(quantized)));

  const auto calibration = convert::Calibration::open({path("calibration")});
  set_input_scales(quantized, calibration, "p99");
  const float of_percentile =
      *tensor::quantized(quantized.named_parameters()["blocks.1.ffn.2.weight"]).product()->input_scale;
  EXPECT_EQ(of_percentile, recorder.statistics("blocks.1.ffn.2").percentile(99) / 448);
  EXPECT_LT(of_percentile, recorder.statistics("blocks.1.ffn.2").amax / 448);
  set_input_scales(quantized, calibration, "none");
  EXPECT_TRUE(run(quantized).equal(dynamic));
  EXPECT_THROW(set_input_scales(quantized, calibration, "most"), Error);
}

}  // namespace
}  // namespace mezzotint::nn
