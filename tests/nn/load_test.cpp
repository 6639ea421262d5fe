#include "mezzotint/nn/load.h"

#include <gmock/gmock.h>

#include "mezzotint/base/error.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "nn/wan_file.h"

namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using models::wan::Transformer;
using testing::ElementsAre;

class Load : public testing::Test {
 protected:
  std::filesystem::path path(const std::string& name) const { return folder_ / (name + ".safetensors"); }

  static at::Tensor run(Transformer& model, at::ScalarType type = at::kFloat) {
    const at::NoGradGuard guard;
    const test::WanInputs inputs;
    return model.forward(inputs.x.to(type), inputs.timestep, inputs.text.to(type));
  }
  static at::Tensor weight_of(const Transformer& model, const std::string& name) {
    return model.named_parameters()[name];
  }

  test::TemporaryFolder folder_;
};

TEST_F(Load, FloatsInTheComputeDtype) {
  test::write_wan(path("model"));
  Transformer model(test::small_wan());
  const LoadReport report = load(model, Model::open(path("model")), {.compute = at::kBFloat16});
  EXPECT_TRUE(report.missing.empty());
  EXPECT_TRUE(report.unexpected.empty());
  uint64_t bytes = 0;
  for (const auto& parameter : model.named_parameters()) {
    EXPECT_EQ(parameter.value().scalar_type(), at::kBFloat16) << parameter.key();
    EXPECT_TRUE(parameter.value().device().is_cpu());
    bytes += parameter.value().nbytes();
  }
  EXPECT_EQ(report.bytes, bytes);
  EXPECT_EQ(report.loaded.size(), model.named_parameters().size());
  EXPECT_TRUE(run(model, at::kBFloat16).isfinite().all().item<bool>());
}

TEST_F(Load, EveryFormatRunsOnItsCodes) {
  test::write_wan(path("model"));
  Transformer plain(test::small_wan());
  load(plain, Model::open(path("model")), {.compute = at::kFloat});
  const at::Tensor expected = run(plain);
  for (const std::string format :
       {"float8_e4m3fn", "int8_tensorwise", "int8_row", "int8_blockwise", "mxfp8", "nvfp4"}) {
    SCOPED_TRACE(format);
    test::convert_file(path("model"), path(format), format);
    Transformer model(test::small_wan());
    const LoadReport report = load(model, Model::open(path(format)), {.compute = at::kFloat});
    EXPECT_TRUE(report.missing.empty());
    EXPECT_TRUE(report.unexpected.empty()) << report.unexpected[0];
    EXPECT_TRUE(tensor::is_quantized(weight_of(model, "blocks.1.ffn.0.weight")));
    EXPECT_FALSE(tensor::is_quantized(weight_of(model, "blocks.1.self_attn.norm_q.weight")));
    const tensor::DispatchScope scope(tensor::DispatchScope::Fallback::error);
    const at::Tensor got = run(model);
    const double error = ((got - expected).norm() / expected.norm()).item<double>();
    EXPECT_GT(error, 1e-4);
    EXPECT_LT(error, format == "nvfp4" ? 0.4 : 0.1);
    bool named = false;
    for (const auto& row : scope.rows()) named |= row.layer == "blocks.1.ffn.0" && row.operation == "aten::linear";
    EXPECT_TRUE(named) << "calls are told by layer";
  }
}

TEST_F(Load, QuantizesWhileItReads) {
  test::write_wan(path("model"), "model.diffusion_model.");
  test::convert_file(path("model"), path("converted"), "int8_row");
  const std::string prefix = "model.diffusion_model.";
  Transformer stored(test::small_wan()), now(test::small_wan()), mixed(test::small_wan());
  load(stored, Model::open(path("converted")), {.compute = at::kFloat, .prefix = prefix});
  load(now, Model::open(path("model")), {.compute = at::kFloat, .prefix = prefix, .to = "int8_row"});
  for (const auto& parameter : stored.named_parameters())
    EXPECT_EQ(tensor::is_quantized(parameter.value()), tensor::is_quantized(weight_of(now, parameter.key())))
        << parameter.key();
  EXPECT_TRUE(run(stored).equal(run(now))) << "the same codes";
  load(mixed, Model::open(path("model")),
       {.compute = at::kFloat,
        .prefix = prefix,
        .to = "int8_row",
        .overrides = {{"blocks\\.0\\..*", ""}, {"blocks\\.1\\.ffn\\.2", "float8_e4m3fn"}}});
  EXPECT_FALSE(tensor::is_quantized(weight_of(mixed, "blocks.0.ffn.0.weight")));
  EXPECT_EQ(tensor::format_label(weight_of(mixed, "blocks.1.ffn.2.weight")), "float8_e4m3fn");
  EXPECT_EQ(tensor::format_label(weight_of(mixed, "blocks.1.ffn.0.weight")),
            tensor::format_label(weight_of(now, "blocks.1.ffn.0.weight")));
}

TEST_F(Load, FindsThePrefix) {
  test::write_wan(path("model"), "one.");
  test::RawFile file = test::read_raw(path("model"));
  for (const auto& [name, tensor] : test::RawFile(file).tensors) file.tensors.emplace_back("two." + name, tensor);
  file.tensors.emplace_back("vae.decoder.norm.weight", test::f32_tensor({1}, {1}));
  test::write_raw(path("two"), file);
  Transformer model(test::small_wan());
  EXPECT_EQ(load(model, Model::open(path("model"))).prefix, "one.");
  try {
    load(model, Model::open(path("two")));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "ambiguous-prefix");
    EXPECT_THAT(error.info().found, testing::AllOf(testing::HasSubstr("'one.'"), testing::HasSubstr("'two.one.'")));
  }
  const LoadReport report = load(model, Model::open(path("two")), {.prefix = "two.one."});
  EXPECT_TRUE(report.missing.empty());
  EXPECT_TRUE(report.unexpected.empty());
  EXPECT_EQ(load(model, Model::open(path("two")), {.prefix = "elsewhere."}).missing.size(),
            model.named_parameters().size());
}

TEST_F(Load, MapsWhatItTakesAsItIs) {
  test::write_wan(path("model"));
  test::convert_file(path("model"), path("int8"), "int8_row");
  const auto before = test::read_raw(path("int8"));
  Transformer model(test::small_wan()), plain(test::small_wan());
  load(plain, Model::open(path("int8")), {.compute = at::kFloat});
  load(model, Model::open(path("int8")), {.compute = at::kFloat, .mmap = true});
  const double difference = ((run(model) - run(plain)).norm() / run(plain).norm()).item<double>();
  EXPECT_LT(difference, 1e-5) << "libraries sum in another order where a tensor lies elsewhere";
  const at::NoGradGuard guard;
  weight_of(model, "blocks.0.self_attn.norm_q.weight").fill_(3);
  weight_of(model, "blocks.0.ffn.0.weight").mul_(2);
  const_cast<at::Tensor&>(tensor::quantized(weight_of(model, "blocks.1.ffn.0.weight")).stored()->tensors[0]).fill_(1);
  EXPECT_FALSE(run(model).allclose(run(plain)));
  EXPECT_EQ(test::read_raw(path("int8")).tensors, before.tensors) << "the file stays";
}

TEST_F(Load, SaysWhatDoesNotFit) {
  test::write_wan(path("model"));
  test::RawFile file = test::read_raw(path("model"));
  std::erase_if(file.tensors, [](const auto& entry) { return entry.first == "head.head.bias"; });
  file.tensors.emplace_back("extra.weight", test::f32_tensor({1}, {1}));
  test::write_raw(path("model"), file);
  Transformer model(test::small_wan());
  const LoadReport report = load(model, Model::open(path("model")));
  EXPECT_THAT(report.missing, ElementsAre("head.head.bias"));
  EXPECT_THAT(report.unexpected, ElementsAre("extra.weight"));
  file.at("blocks.0.modulation") = test::f32_tensor({1, 6, 8}, std::vector<float>(48, 0.0f));
  test::write_raw(path("model"), file);
  try {
    load(model, Model::open(path("model")));
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(std::string(error.name()).c_str(), "shape-mismatch");
    EXPECT_THAT(error.what(), testing::HasSubstr("blocks.0.modulation"));
  }
}

}  // namespace
}  // namespace mezzotint::nn
