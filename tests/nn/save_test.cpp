#include "mezzotint/nn/save.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "nn/wan_file.h"
#include "tensor/tensor_case.h"

namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using models::wan::Transformer;
using test::RawFile;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

/// What verify finds wrong, as one text.
std::string errors(const std::filesystem::path& path, bool comfyui = false) {
  std::string text;
  for (const auto& finding : checkpoint::verify(Model::open(path), {.comfyui = comfyui}))
    if (finding.severity == checkpoint::Severity::error) text += finding.subject + ": " + finding.message + "\n";
  return text;
}

/// Names of tensors that are not in both files with the same dtype, shape and bytes.
std::vector<std::string> differences(const RawFile& a, const RawFile& b) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : a.tensors)
    if (b.find(name) == nullptr || *b.find(name) != tensor) names.push_back(name);
  for (const auto& [name, tensor] : b.tensors)
    if (a.find(name) == nullptr) names.push_back(name);
  return names;
}

class Save : public testing::Test {
 protected:
  std::filesystem::path path(const std::string& name) const { return folder_ / (name + ".safetensors"); }
  RawFile raw(const std::string& name) const { return test::read_raw(path(name)); }

  static at::Tensor run(Transformer& model) {
    const at::NoGradGuard guard;
    const test::WanInputs inputs;
    return model.forward(inputs.x, inputs.timestep, inputs.text);
  }

  test::TemporaryFolder folder_;
};

TEST_F(Save, EveryFormatToTheByte) {
  test::write_wan(path("model"));
  for (const std::string& format : test::stored_formats()) {
    SCOPED_TRACE(format);
    test::convert_file(path("model"), path(format), format);
    const auto file = Model::open(path(format));
    for (const bool mmap : {false, true}) {
      Transformer model(test::small_wan());
      load(model, file, {.compute = at::kBFloat16, .mmap = mmap});
      const SaveReport report = save(model, path("saved"), {.source = &file, .overwrite = true});
      EXPECT_THAT(report.changed, IsEmpty());
      EXPECT_THAT(differences(raw(format), raw("saved")), IsEmpty())
          << "norms, which were float32 and loaded as bf16, too";
      EXPECT_EQ(raw(format).metadata, raw("saved").metadata);
    }
    EXPECT_EQ(errors(path("saved")), "");
  }
}

TEST_F(Save, WithoutTheSource) {
  test::write_wan(path("model"));
  for (const std::string& format : test::stored_formats()) {
    SCOPED_TRACE(format);
    test::convert_file(path("model"), path(format), format);
    Transformer model(test::small_wan()), again(test::small_wan());
    load(model, Model::open(path(format)), {.compute = at::kFloat});
    save(model, path("saved"), {.metadata = {{"title", "mine"}}, .overwrite = true});
    EXPECT_THAT(differences(raw(format), raw("saved")), IsEmpty()) << "plain tensors are float32 in both";
    EXPECT_EQ(raw("saved").metadata.at("title"), "mine");
    EXPECT_EQ(raw("saved").metadata.at("_quantization_metadata"), raw(format).metadata.at("_quantization_metadata"));
    EXPECT_EQ(errors(path("saved")), "");
    load(again, Model::open(path("saved")), {.compute = at::kFloat});
    EXPECT_TRUE(run(model).equal(run(again)));
  }
}

TEST_F(Save, WhatChangedAndNothingElse) {
  test::write_wan(path("model"));
  test::convert_file(path("model"), path("int8"), "int8_row");
  const auto file = Model::open(path("int8"));
  Transformer model(test::small_wan());
  load(model, file, {.compute = at::kBFloat16});
  {
    const at::NoGradGuard guard;
    model.named_parameters()["blocks.0.self_attn.norm_q.weight"].mul_(2);
  }
  SaveReport report = save(model, path("plain"), {.source = &file});
  EXPECT_THAT(report.changed, ElementsAre("blocks.0.self_attn.norm_q.weight"));
  EXPECT_THAT(differences(raw("int8"), raw("plain")), ElementsAre("blocks.0.self_attn.norm_q.weight"));
  EXPECT_EQ(raw("plain").at("blocks.0.self_attn.norm_q.weight").dtype, "BF16") << "the dtype it has now";
  {
    const at::NoGradGuard guard;
    at::Tensor weight = model.named_parameters()["blocks.1.ffn.0.weight"];
    weight.copy_(tensor::dequantized(weight) * 0.5);
  }
  report = save(model, path("codes"), {.source = &file});
  EXPECT_THAT(report.changed, UnorderedElementsAre("blocks.0.self_attn.norm_q.weight", "blocks.1.ffn.0"));
  const auto changed = differences(raw("plain"), raw("codes"));
  ASSERT_FALSE(changed.empty());
  for (const auto& name : changed) EXPECT_TRUE(name.starts_with("blocks.1.ffn.0.weight")) << name;
  EXPECT_EQ(raw("codes").metadata.count("mezzotint"), 0u) << "no recipe makes this file";
  EXPECT_EQ(errors(path("codes")), "");
}

TEST_F(Save, QuantizedWhileLoading) {
  test::write_wan(path("model"));
  const auto file = Model::open(path("model"));
  Transformer model(test::small_wan()), again(test::small_wan());
  load(model, file, {.compute = at::kFloat, .to = "int8_row", .effort = 0});
  save(model, path("saved"), {.source = &file});
  test::convert_file(path("model"), path("converted"), "int8_row");
  EXPECT_EQ(errors(path("saved"), true), "");
  load(again, Model::open(path("saved")), {.compute = at::kFloat});
  EXPECT_TRUE(tensor::is_quantized(again.named_parameters()["blocks.1.ffn.0.weight"]));
  EXPECT_TRUE(run(model).equal(run(again)));
  std::vector<std::string> names, converted;
  for (const auto& [name, tensor] : raw("saved").tensors) names.push_back(name);
  for (const auto& [name, tensor] : raw("converted").tensors) converted.push_back(name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(converted)) << "the tensors that the converter writes";
}

/// A file with everything that a layer can have beside it, between two other components.
RawFile all_in_one(const RawFile& converted, const std::string& prefix) {
  RawFile file;
  for (const auto& [name, tensor] : converted.tensors) file.tensors.emplace_back(prefix + name, tensor);
  const std::string layer = prefix + "blocks.0.ffn.0", marker = layer + ".comfy_quant";
  file.at(marker) = test::text_tensor(R"({"format": "nvfp4", "full_precision_matrix_mult": true, "ours": [1, 2]})");
  file.tensors.emplace_back(layer + ".input_scale", test::f32_tensor({}, {0.25f}));
  test::RawTensor scale = test::f32_tensor({256}, std::vector<float>(256, 0.5f));
  file.tensors.emplace_back(layer + ".pre_quant_scale", scale);
  for (const auto& [name, tensor] : test::sound_fp8_file().tensors)
    file.tensors.emplace_back("text_encoders.t5xxl.transformer." + name, tensor);
  file.tensors.emplace_back("vae.decoder.conv_in.weight", test::f32_tensor({2, 1, 1, 1}, {1, 2}));
  file.metadata["title"] = "all in one";
  return file;
}

TEST_F(Save, AComponentOfAnAllInOneFile) {
  const std::string prefix = "model.diffusion_model.";
  test::write_wan(path("floats"));
  test::convert_file(path("floats"), path("nvfp4"), "nvfp4");
  test::write_raw(path("model"), all_in_one(raw("nvfp4"), prefix));
  const auto file = Model::open(path("model"));
  Transformer model(test::small_wan());
  const LoadReport loaded = load(model, file, {.compute = at::kBFloat16});
  EXPECT_EQ(loaded.prefix, prefix) << "found by the names";
  EXPECT_THAT(loaded.missing, IsEmpty());
  EXPECT_THAT(loaded.unexpected, IsEmpty());
  const auto& product = *tensor::quantized(model.named_parameters()["blocks.0.ffn.0.weight"]).product();
  EXPECT_EQ(product.input_scale, 0.25f);
  EXPECT_TRUE(product.full_precision_matrix_mult);
  EXPECT_TRUE(product.pre_quant_scale.equal(torch::full({256}, 0.5)));

  EXPECT_THAT(save(model, path("whole"), {.source = &file}).changed, IsEmpty());
  EXPECT_THAT(differences(raw("model"), raw("whole")), IsEmpty());
  EXPECT_EQ(raw("whole").metadata, raw("model").metadata);

  const SaveReport part = save(model, path("part"), {.source = &file, .rest = false});
  EXPECT_EQ(part.left_out.size(), test::sound_fp8_file().tensors.size() + 1);
  for (const auto& name : differences(raw("model"), raw("part"))) EXPECT_FALSE(name.starts_with(prefix)) << name;
  EXPECT_EQ(raw("part").tensors.size() + part.left_out.size(), raw("model").tensors.size());
  EXPECT_EQ(errors(path("part")), "");

  // One changed layer: the others keep bytes and markers, those of other components too.
  {
    const at::NoGradGuard guard;
    at::Tensor weight = model.named_parameters()["blocks.1.ffn.0.weight"];
    weight.copy_(tensor::dequantized(weight) * 0.5);
  }
  EXPECT_THAT(save(model, path("changed"), {.source = &file}).changed, ElementsAre(prefix + "blocks.1.ffn.0"));
  for (const auto& name : differences(raw("model"), raw("changed")))
    EXPECT_TRUE(name.starts_with(prefix + "blocks.1.ffn.0.weight")) << name;
  const auto header = nlohmann::json::parse(raw("changed").metadata.at("_quantization_metadata"));
  EXPECT_EQ(header["layers"][prefix + "blocks.0.ffn.0"]["ours"], (std::vector<int>{1, 2}));
  EXPECT_TRUE(header["layers"].contains("text_encoders.t5xxl.transformer.a"));
  EXPECT_EQ(errors(path("changed")), "");

  // Without the source, what the layer brought along is in the tensor.
  save(model, path("alone"), {.prefix = ""});
  EXPECT_EQ(raw("alone").at("blocks.0.ffn.0.input_scale"), test::f32_tensor({}, {0.25f}));
  EXPECT_EQ(raw("alone").at("blocks.0.ffn.0.pre_quant_scale").bytes,
            raw("model").at(prefix + "blocks.0.ffn.0.pre_quant_scale").bytes);
  EXPECT_THAT(raw("alone").at("blocks.0.ffn.0.comfy_quant").bytes, testing::HasSubstr("full_precision_matrix_mult"));
}

TEST_F(Save, Shards) {
  test::write_wan(path("floats"));
  test::convert_file(path("floats"), path("model"), "float8_e4m3fn");
  const auto file = Model::open(path("model"));
  Transformer model(test::small_wan()), again(test::small_wan());
  load(model, file, {.compute = at::kFloat});
  save(model, path("sharded"), {.source = &file, .max_shard_bytes = 1 << 20});
  const auto index = folder_ / "sharded.safetensors.index.json";
  ASSERT_TRUE(std::filesystem::exists(index));
  const auto shards = Model::open(index);
  EXPECT_GT(shards.source().files().size(), 2u);
  for (const bool mmap : {false, true}) {
    const LoadReport report = load(again, shards, {.compute = at::kFloat, .mmap = mmap});
    EXPECT_THAT(report.missing, IsEmpty());
    EXPECT_THAT(report.unexpected, IsEmpty());
    EXPECT_LT(test::relative(run(again), run(model)), 1e-5) << mmap;
    EXPECT_THAT(save(again, path("again"), {.source = &file, .overwrite = true}).changed, IsEmpty());
  }
}

TEST_F(Save, KeepsWhatIsThere) {
  test::write_wan(path("model"));
  const auto file = Model::open(path("model"));
  Transformer model(test::small_wan());
  load(model, file);
  const auto name_of = [&](const SaveOptions& options, const std::string& to) {
    try {
      save(model, path(to), options);
    } catch (const Error& error) {
      return std::string(error.name());
    }
    return std::string("none");
  };
  EXPECT_EQ(name_of({.source = &file}, "out"), "none");
  EXPECT_EQ(name_of({.source = &file}, "out"), "output-exists");
  EXPECT_EQ(name_of({.source = &file, .overwrite = true}, "out"), "none");
  EXPECT_EQ(name_of({.source = &file, .overwrite = true}, "model"), "output-is-input");
  const Transformer empty(test::small_wan());
  EXPECT_THROW(save(empty, path("empty")), Error);
  EXPECT_FALSE(std::filesystem::exists(path("empty")));
  EXPECT_EQ(save(empty, path("copy"), {.source = &file}).changed.size(), 0u) << "what was not loaded is the source's";
  EXPECT_THAT(differences(raw("model"), raw("copy")), IsEmpty());
}

}  // namespace
}  // namespace mezzotint::nn
