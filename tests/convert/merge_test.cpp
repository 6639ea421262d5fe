#include "mezzotint/convert/merging/merge.h"
#include "convert/merging.h"
#include "convert/recordings.h"
#include "mezzotint/convert/recipe.h"

namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::RawTensor;
using test::test_rng;

TEST_F(Merging, AddsDeltasToFloatsOfEveryDtype) {
  auto rng = test_rng();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const RawFile file = small_model(rng, dtype);
    Lora q = Lora::random(rng, 48, 64, 4), up = Lora::random(rng, 128, 64, 8);
    up.alpha = 4;
    RawFile lora;
    q.write(lora, "diffusion_model.blocks.0.q");
    up.write(lora, "lora_unet_blocks_1_up");
    const RawFile after = convert(file, merging({lora_file(lora, 0.75)}));
    for (const auto& [name, tensor] : file.tensors) {
      SCOPED_TRACE(name + " " + tensor.dtype);
      if (name == "blocks.0.q.weight")
        expect_merged(tensor, after.at(name), q.delta(0.75));
      else if (name == "blocks.1.up.weight")
        expect_merged(tensor, after.at(name), up.delta(0.75));
      else
        EXPECT_EQ(tensor, after.at(name));
    }
    EXPECT_EQ(row(plan_, "blocks.0.q.weight").action, Action::encode);
    EXPECT_EQ(row(plan_, "blocks.1.q.weight").action, Action::copy);
    EXPECT_EQ(after.tensors.size(), file.tensors.size());
    expect_sound(out());
  }
}

TEST_F(Merging, DampensTheNthFile) {
  auto rng = test_rng();
  const RawFile file = small_model(rng, DType::f32);
  std::vector<MergeLora> files;
  std::vector<Lora> loras;
  for (int n = 0; n < 3; ++n) {
    loras.push_back(Lora::random(rng, 48, 64, 2));
    RawFile lora;
    loras.back().write(lora, "blocks.0.q");
    files.push_back(lora_file(lora, n == 1 ? -0.5 : 1, "lora" + std::to_string(n)));
  }
  for (const bool dampen : {true, false}) {
    ConvertOptions options = merging(files);
    options.merge_dampen = dampen;
    Matrix delta(48 * 64);
    for (size_t n = 0; n < 3; ++n) {
      const Matrix one = loras[n].delta(files[n].strength * (dampen ? std::pow(0.9, n) : 1));
      for (size_t i = 0; i < delta.size(); ++i) delta[i] += one[i];
    }
    expect_merged(file.at("blocks.0.q.weight"), convert(file, options).at("blocks.0.q.weight"), delta);
  }
}

TEST_F(Merging, ConvolutionsBiasesAndNorms) {
  auto rng = test_rng();
  RawFile file = small_model(rng, DType::f32);
  for (const auto& [name, shape] : {std::pair<std::string, Shape>{"conv1.weight", {24, 10, 3}},
                                    {"conv2.weight", {80, 6, 3, 3}},
                                    {"conv3.weight", {8, 4, 2, 3, 3}}})
    file.tensors.emplace_back(name, weight(rng, shape, DType::f32));
  const Lora one = Lora::random(rng, 24, 30, 4, 0.5), two = Lora::random(rng, 80, 54, 4, 0.5),
             three = Lora::random(rng, 8, 72, 2, 0.5);
  RawFile lora;
  one.write(lora, "conv1", {3});
  two.write(lora, "conv2", {3, 3});
  three.write(lora, "conv3", {2, 3, 3});
  const std::vector<float> norm = normal_floats(rng, 64), bias = normal_floats(rng, 48), set = normal_floats(rng, 64);
  lora.tensors.emplace_back("blocks.0.norm.w_norm", test::f32_tensor({64}, norm));
  lora.tensors.emplace_back("blocks.0.q.diff_b", test::f32_tensor({48}, bias));
  lora.tensors.emplace_back("blocks.1.norm.set_weight", test::f32_tensor({64}, set));
  const auto half = [](const std::vector<float>& values) {
    Matrix out(values.begin(), values.end());
    for (double& x : out) x *= 0.5;
    return out;
  };
  for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{64} << 10}) {
    ConvertOptions options = merging({lora_file(lora, 0.5)});
    options.max_memory = memory;
    const RawFile after = convert(file, options);
    expect_merged(file.at("conv1.weight"), after.at("conv1.weight"), one.delta(0.5));
    expect_merged(file.at("conv2.weight"), after.at("conv2.weight"), two.delta(0.5));
    expect_merged(file.at("conv3.weight"), after.at("conv3.weight"), three.delta(0.5));
    expect_merged(file.at("blocks.0.norm.weight"), after.at("blocks.0.norm.weight"), half(norm));
    expect_merged(file.at("blocks.0.q.bias"), after.at("blocks.0.q.bias"), half(bias));
    EXPECT_EQ(plain_values(after.at("blocks.1.norm.weight")), Matrix(set.begin(), set.end()));
    EXPECT_EQ(after.at("blocks.0.q.weight"), file.at("blocks.0.q.weight"));
  }
}

TEST_F(Merging, FusedTargetsTakeTheirRows) {
  auto rng = test_rng();
  RawFile file;
  constexpr int64_t h = 40;
  file.tensors.emplace_back("double_blocks.0.img_attn.qkv.weight", weight(rng, {3 * h, h}, DType::f32));
  file.tensors.emplace_back("double_blocks.0.img_attn.proj.weight", weight(rng, {h, h}, DType::f32));
  file.tensors.emplace_back("final_layer.adaLN_modulation.1.weight", weight(rng, {2 * h, h}, DType::f32));
  const Lora k = Lora::random(rng, h, h, 4, 0.3), v = Lora::random(rng, h, h, 2, 0.3),
             swapped = Lora::random(rng, 2 * h, h, 4, 0.3);
  RawFile lora;
  k.write(lora, "transformer.transformer_blocks.0.attn.to_k");
  v.write(lora, "transformer.transformer_blocks.0.attn.to_v");
  swapped.write(lora, "transformer.norm_out.linear");
  const RawFile after = convert(file, merging({lora_file(lora)}));
  Matrix delta(3 * h * h, 0.0);
  const Matrix of_k = k.delta(), of_v = v.delta();
  std::copy(of_k.begin(), of_k.end(), delta.begin() + h * h);
  std::copy(of_v.begin(), of_v.end(), delta.begin() + 2 * h * h);
  const auto& qkv = "double_blocks.0.img_attn.qkv.weight";
  expect_merged(file.at(qkv), after.at(qkv), delta);
  EXPECT_EQ(file.at(qkv).bytes.substr(0, 4 * h * h), after.at(qkv).bytes.substr(0, 4 * h * h));
  Matrix halves = swapped.delta();
  std::rotate(halves.begin(), halves.begin() + h * h, halves.end());
  expect_merged(file.at("final_layer.adaLN_modulation.1.weight"), after.at("final_layer.adaLN_modulation.1.weight"),
                halves);
}

/// OFT of blocks of 6 rows (I + Q)(I - Q)^-1, BOFT over all rows: tiles must not cut them.
TEST_F(Merging, RotationsAreNotCutByTiles) {
  auto rng = test_rng();
  RawFile file;
  file.tensors.emplace_back("blocks.0.q.weight", weight(rng, {96, 2048}, DType::f32));
  file.tensors.emplace_back("blocks.0.k.weight", weight(rng, {64, 2048}, DType::bf16));
  RawFile lora;
  lora.tensors.emplace_back("blocks.0.q.oft_blocks", test::f32_tensor({16, 6, 6}, normal_floats(rng, 16 * 36, 0.2)));
  lora.tensors.emplace_back("blocks.0.k.oft_blocks",
                            test::f32_tensor({3, 16, 4, 4}, normal_floats(rng, 3 * 16 * 16, 0.2)));
  std::string first;
  for (const std::string to : {"", "float8_e4m3fn_rowwise", "int8_row"}) {
    first.clear();
    for (const int threads : {1, 3})
      for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{3} << 20}) {
        ConvertOptions options = merging({lora_file(lora)});
        options.to = to;
        options.effort = 2;
        options.max_memory = memory;
        const RawFile after = convert(file, options, threads);
        if (first.empty()) first = file_bytes(out());
        EXPECT_TRUE(file_bytes(out()) == first) << to << threads << " " << memory;
        if (!to.empty()) continue;
        // Rotations of rows keep the columns' lengths.
        for (const auto& [name, tensor] : file.tensors) {
          const Matrix w = plain_values(tensor), got = plain_values(after.at(name));
          double moved = 0;
          for (size_t c = 0; c < 2048; ++c) {
            double before = 0, behind = 0;
            for (size_t i = c; i < w.size(); i += 2048) {
              before += w[i] * w[i];
              behind += got[i] * got[i];
              moved += std::abs(w[i] - got[i]);
            }
            EXPECT_NEAR(behind / before, 1, tensor.dtype == "F32" ? 1e-5 : 2e-2);
          }
          EXPECT_GT(moved, 100);
        }
      }
  }
  ConvertOptions options = merging({lora_file(lora)});
  options.max_memory = 256 << 10;
  EXPECT_EQ(error_of([&] { plan(file, options); }), "merge-memory");
}

TEST_F(Merging, EnlargesFloatWeights) {
  auto rng = test_rng();
  RawFile file = small_model(rng, DType::f32);
  const Lora grown = Lora::random(rng, 48, 96, 4, 0.5);
  RawFile lora;
  grown.write(lora, "blocks.0.q");
  lora.tensors.emplace_back("blocks.0.q.reshape_weight", RawTensor{"I64", {2}, test::raw_bytes<int64_t>({48, 96})});
  const RawFile after = convert(file, merging({lora_file(lora)}));
  Matrix wide(48 * 96);
  const Matrix w = plain_values(file.at("blocks.0.q.weight"));
  for (size_t r = 0; r < 48; ++r) std::copy_n(w.begin() + r * 64, 64, wide.begin() + r * 96);
  expect_merged(test::f32_tensor({48, 96}, std::vector<float>(wide.begin(), wide.end())), after.at("blocks.0.q.weight"),
                grown.delta());
  // As a quantized layer of the larger shape; but no quantized layer grows.
  ConvertOptions to = merging({lora_file(lora)});
  to.to = "int8_row";
  to.preset = "none";
  EXPECT_EQ(convert(file, to).at("blocks.0.q.weight").shape, (Shape{48, 96}));
  const RawFile quantized_base = convert(file, {.to = "int8_row", .preset = "none"});
  EXPECT_EQ(error_of([&] { plan(quantized_base, merging({lora_file(lora)})); }), "merge-unsupported");
}

TEST_F(Merging, SaysWhatHasNoPlace) {
  auto rng = test_rng();
  const RawFile file = small_model(rng);
  const Lora q = Lora::random(rng, 48, 64, 4), narrow = Lora::random(rng, 48, 32, 4);
  RawFile lora, nothing;
  q.write(lora, "blocks.0.q");
  narrow.write(lora, "blocks.1.q");
  q.write(lora, "blocks.7.q");
  q.write(nothing, "layers.7.q");
  const Plan made = plan(file, merging({lora_file(lora)}));
  EXPECT_NE(row(made, "blocks.0.q.weight").merge, nullptr);
  EXPECT_EQ(row(made, "blocks.1.q.weight").merge, nullptr);
  const auto mentions = [](const std::vector<std::string>& lines, const std::string& text) {
    return std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.find(text) != line.npos; });
  };
  EXPECT_TRUE(mentions(made.notes, "1 of 3 patches (1 lora) on 1 tensors"));
  EXPECT_TRUE(mentions(made.warnings, "blocks.1.q"));
  EXPECT_TRUE(mentions(made.warnings, "blocks.7.q"));
  ConvertOptions strict = merging({lora_file(lora)});
  strict.merge_strict = true;
  EXPECT_EQ(error_of([&] { plan(file, strict); }), "unmatched-adapter-keys");
  EXPECT_EQ(error_of([&] { plan(file, merging({lora_file(nothing, 1, "other")})); }), "adapter-unrelated");
  EXPECT_EQ(error_of([&] { plan(file, merging({lora_file(lora, NAN)})); }), "bad-option");
  EXPECT_EQ(error_of([&] { plan(file, merging({{(adapters_ / "none.safetensors").string(), 1}})); }), "file-not-found");
  ConvertOptions original;
  original.merge_original = in().string();
  EXPECT_EQ(error_of([&] { plan(file, original); }), "bad-option");
}

TEST_F(Merging, WithoutAdaptersEveryTensorStays) {
  auto rng = test_rng();
  RawFile file = convert(small_model(rng), {.to = "int8_row", .preset = "none"});
  file.tensors.emplace_back("vae.decoder.conv_in.weight", weight(rng, {8, 4, 3, 3}));
  ConvertOptions options;
  options.to = "";
  const RawFile after = convert(file, options);
  EXPECT_EQ(after.tensors.size(), file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) EXPECT_EQ(tensor, after.at(name)) << name;
}

TEST_F(Merging, BeforeConversionIsLikeMergingFirst) {
  auto rng = test_rng();
  const RawFile file = small_model(rng, DType::f32);
  const Lora q = Lora::random(rng, 48, 64, 4);
  RawFile lora;
  q.write(lora, "blocks.0.q");
  lora.tensors.emplace_back("blocks.0.q.diff_b", test::f32_tensor({48}, normal_floats(rng, 48)));
  const auto option = lora_file(lora);
  const RawFile merged_first = convert(file, merging({option}));
  for (const std::string to : {"float8_e4m3fn", "int8_blockwise:block_size=16", "nvfp4", "bf16"})
    for (const int effort : {0, 2}) {
      const ConvertOptions plain{.to = to, .preset = "none", .effort = effort};
      ConvertOptions at_once = plain;
      at_once.merge_loras = {option};
      const RawFile expected = convert(merged_first, plain), got = convert(file, at_once);
      for (const auto& [name, tensor] : expected.tensors) EXPECT_EQ(tensor, got.at(name)) << to << " " << name;
      EXPECT_NE(got.at("blocks.0.q.weight"), convert(file, plain).at("blocks.0.q.weight"));
    }
}

TEST_F(Merging, APatchedBiasIsCorrectedToo) {
  auto rng = test_rng();
  const RawFile file = small_model(rng, DType::f32);
  const RawFile recording = test::recording("blocks.0.q", test::make_inputs(rng, 300, 64));
  const auto calibration = adapters_ / "calibration.safetensors";
  test::write_raw(calibration, recording);
  const Lora q = Lora::random(rng, 48, 64, 4);
  const std::vector<float> bias = normal_floats(rng, 48);
  RawFile lora;
  q.write(lora, "blocks.0.q");
  lora.tensors.emplace_back("blocks.0.q.diff_b", test::f32_tensor({48}, bias));
  const auto option = lora_file(lora, 0.5);
  ConvertOptions plain{.to = "float8_e4m3fn", .preset = "none"};
  plain.calibration = {calibration.string()};
  ConvertOptions at_once = plain;
  at_once.merge_loras = {option};
  const RawFile expected = convert(convert(file, merging({option})), plain), got = convert(file, at_once);
  EXPECT_EQ(row(plan_, "blocks.0.q.bias").action, Action::correct);
  EXPECT_EQ(got.at("blocks.0.q.bias"), expected.at("blocks.0.q.bias"));
  EXPECT_NE(got.at("blocks.0.q.bias"), convert(file, plain).at("blocks.0.q.bias"));
}

TEST_F(Merging, GoesOnAfterAnInterruption) {
  auto rng = test_rng();
  const RawFile file = long_model(rng), base = convert(file, {.to = "int8_row", .preset = "none"});
  RawFile lora;
  for (int block = 0; block < 12; ++block)
    Lora::random(rng, 64, 64, 4).write(lora, "blocks." + std::to_string(block) + ".q");
  for (const RawFile& source : {file, base}) {
    const ConvertOptions options = merging({lora_file(lora)});
    const std::string expected = undisturbed(source, options);
    for (const int threads : {1, 3}) {
      interrupt(options, 0.3, threads);
      interrupt(options, 0.7, threads, true);
      // Other strengths are another run.
      ConvertOptions other = options;
      other.merge_loras[0].strength = 0.5;
      EXPECT_EQ(error_of([&] { resume(other, threads); }), "resume-mismatch");
      const Outcome outcome = resume(options, threads);
      EXPECT_GT(outcome.rows_resumed, 4u);
      EXPECT_TRUE(file_bytes(out()) == expected);
      EXPECT_EQ(names_in_folder().size(), 2u);
      std::filesystem::remove(out());
    }
    // Nor is another file of the same name.
    interrupt(options, 0.7, 2);
    RawFile changed = lora;
    changed.metadata["note"] = "another";
    lora_file(changed);
    EXPECT_EQ(error_of([&] { resume(options, 2); }), "resume-mismatch");
    std::filesystem::remove(partial());
    std::filesystem::remove(journal());
  }
}

TEST_F(Merging, AnErrorInAnAdapterLeavesNoOutput) {
  auto rng = test_rng();
  test::write_raw(in(), small_model(rng));
  RawFile lora;
  Lora::random(rng, 48, 64, 4).write(lora, "blocks.1.q");
  const auto option = lora_file(lora);
  const auto model = checkpoint::Model::open(in());
  const Plan made = make_plan(model, out(), merging({option}), 2);
  std::filesystem::resize_file(option.file, std::filesystem::file_size(option.file) - 64);
  EXPECT_EQ(error_of([&] { execute(made, model, {}); }), "file-changed");
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(Merging, TellsItsOptionsInRecipes) {
  ConvertOptions options = merging({{"/some/where/a.safetensors", 0.5}, {"b.safetensors", -1}});
  options.merge_dampen = false;
  options.merge_rounding = MergeRounding::nearest;
  options.merge_original = "/else/where/base.safetensors";
  const std::string text = recipe_json(options);
  EXPECT_EQ(text.find("/some"), std::string::npos) << "headers name no folders";
  const ConvertOptions read = recipe_from_json(text);
  EXPECT_EQ(read.to, "");
  EXPECT_EQ(read.merge_loras, (std::vector<MergeLora>{{"a.safetensors", 0.5}, {"b.safetensors", -1}}));
  EXPECT_FALSE(read.merge_dampen);
  EXPECT_EQ(read.merge_rounding, MergeRounding::nearest);
  EXPECT_EQ(read.merge_original, "base.safetensors");
  for (const std::string bad :
       {R"({"version":1,"merge_loras":"a"})", R"({"version":1,"merge_loras":[{"file":"a"}]})",
        R"({"version":1,"merge_loras":[{"file":"a","strength":"1"}]})", R"({"version":1,"merge_rounding":"up"})"})
    EXPECT_EQ(error_of([&] { recipe_from_json(bad); }), "bad-recipe") << bad;
}

}  // namespace
}  // namespace mezzotint::convert
