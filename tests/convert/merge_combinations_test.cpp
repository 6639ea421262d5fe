#include <gmock/gmock.h>

#include "convert/merging.h"
#include "convert/recordings.h"
#include "mezzotint/convert/budget/budget.h"
#include "mezzotint/convert/merging/merge.h"

// Merges together with what else a conversion can do: the same as merging first.
namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::test_rng;
using testing::EndsWith;

class MergingWith : public Merging {
 protected:
  void expect_like_merging_first(const RawFile& file, const MergeLora& lora, const ConvertOptions& plain) {
    ConvertOptions at_once = plain;
    at_once.merge_loras = {lora};
    const RawFile expected = convert(convert(file, merging({lora})), plain), got = convert(file, at_once);
    EXPECT_EQ(got.tensors.size(), expected.tensors.size());
    for (const auto& [name, tensor] : expected.tensors) EXPECT_EQ(tensor, got.at(name)) << name;
  }
};

TEST_F(MergingWith, ShardsOnEitherSide) {
  auto rng = test_rng();
  const RawFile file = long_model(rng);
  const Lora q = Lora::random(rng, 64, 64, 4);
  RawFile lora;
  for (const int block : {0, 5, 11}) q.write(lora, "blocks." + std::to_string(block) + ".q");
  ConvertOptions options = merging({lora_file(lora)});
  const RawFile expected = convert(file, options);

  const test::TemporaryFolder shards;
  const auto run = [](const std::filesystem::path& from, const std::filesystem::path& to, const ConvertOptions& how) {
    const auto model = checkpoint::Model::open(from);
    const Plan made = make_plan(model, to, how, 2);
    execute(made, model, {.overwrite = true});
    return made.layout;
  };
  const io::OutputPlan split = run(in(), shards / "model.safetensors", {.to = "", .max_shard_bytes = 30 << 10});
  ASSERT_GT(split.files.size(), 2u);
  run(split.index_path, out(), options);
  const RawFile whole = test::read_raw(out());
  for (const auto& [name, tensor] : expected.tensors) EXPECT_EQ(tensor, whole.at(name)) << name;

  options.max_shard_bytes = 30 << 10;
  const test::TemporaryFolder merged;
  size_t seen = 0;
  for (const auto& part : run(split.index_path, merged / "model.safetensors", options).files)
    for (const auto& [name, tensor] : test::read_raw(part.path).tensors) {
      EXPECT_EQ(tensor, expected.at(name)) << name;
      ++seen;
    }
  EXPECT_EQ(seen, expected.tensors.size());
  EXPECT_NE(expected.at("blocks.5.q.weight"), file.at("blocks.5.q.weight"));
}

TEST_F(MergingWith, SmoothedInputs) {
  auto rng = test_rng();
  test::Inputs inputs = test::make_inputs(rng, 300, 64);
  for (size_t t = 0; t < inputs.tokens; ++t) inputs.x[t * 64 + 5] *= 30;
  const auto calibration = adapters_ / "calibration.safetensors";
  test::write_raw(calibration, test::recording("blocks.0.q", inputs));
  RawFile lora;
  Lora::random(rng, 48, 64, 4).write(lora, "blocks.0.q");
  ConvertOptions plain{.to = "nvfp4", .preset = "none", .smooth = 0.5};
  plain.calibration = {calibration.string()};
  expect_like_merging_first(small_model(rng, DType::f32), lora_file(lora), plain);
  EXPECT_NE(test::read_raw(out()).find("blocks.0.q.pre_quant_scale"), nullptr);
}

TEST_F(MergingWith, NormsThatTakeOverFactors) {
  auto rng = test_rng();
  const std::string stem = "encoder.block.0.layer.0.";
  test::Inputs inputs = test::make_inputs(rng, 300, 64);
  for (size_t t = 0; t < inputs.tokens; ++t) inputs.x[t * 64 + 5] *= 30;
  RawFile file, recording, lora;
  recording.metadata["mezzotint_calibration"] = "1";
  for (const std::string name : {"q", "k", "v"}) {
    file.tensors.emplace_back(stem + "SelfAttention." + name + ".weight", weight(rng, {48, 64}, DType::f32));
    test::add_recording(recording, stem + "SelfAttention." + name, inputs, false);
  }
  file.tensors.emplace_back(stem + "SelfAttention.o.weight", weight(rng, {64, 48}, DType::f32));
  file.tensors.emplace_back(stem + "layer_norm.weight", weight(rng, {64}, DType::f32));
  const auto calibration = adapters_ / "calibration.safetensors";
  test::write_raw(calibration, recording);
  Lora::random(rng, 48, 64, 4).write(lora, stem + "SelfAttention.q");
  ConvertOptions plain{.to = "int8_row", .preset = "t5", .smooth = 0.5};
  plain.calibration = {calibration.string()};
  const MergeLora option = lora_file(lora);
  expect_like_merging_first(file, option, plain);
  const RawFile smoothed = test::read_raw(out());
  ConvertOptions rough = plain;
  rough.smooth.reset();
  rough.merge_loras = {option};
  EXPECT_NE(smoothed.at(stem + "layer_norm.weight"), convert(file, rough).at(stem + "layer_norm.weight"));

  lora.tensors.emplace_back(stem + "layer_norm.w_norm", test::f32_tensor({64}, normal_floats(rng, 64, 0.1)));
  plain.merge_loras = {lora_file(lora)};
  convert(file, plain);
  EXPECT_THAT(row(plan_, stem + "SelfAttention.k").reason, EndsWith("layer_norm.weight is changed by an adapter"));
}

TEST_F(MergingWith, ASizeBudget) {
  auto rng = test_rng();
  const RawFile file = small_model(rng, DType::f32);
  RawFile lora;
  Lora::random(rng, 48, 64, 4).write(lora, "blocks.0.q");
  test::write_raw(in(), file);
  ConvertOptions options{.to = "float8_e4m3fn", .preset = "none"};
  options.merge_loras = {lora_file(lora)};
  const uint64_t target = plan(options).layout.total_bytes - 5'000;
  const Budget budget = choose_budget(checkpoint::Model::open(in()), out(), options, {.target_bytes = target});
  ASSERT_EQ(budget.options.merge_loras.size(), 1u);
  EXPECT_LE(budget.bytes, target);
  const RawFile got = convert(file, budget.options);
  EXPECT_EQ(std::filesystem::file_size(out()), budget.bytes);
  EXPECT_THAT(row(plan_, "blocks.0.q").reason, EndsWith("merged: 1 patch"));
  ConvertOptions plain = budget.options;
  plain.merge_loras.clear();
  expect_like_merging_first(file, options.merge_loras[0], plain);
}

}  // namespace
}  // namespace mezzotint::convert
