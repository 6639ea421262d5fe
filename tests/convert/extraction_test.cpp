#include "mezzotint/convert/extraction/extraction.h"

#include <cmath>

#include "convert/merging.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;

/// Plain decomposition, by Gram matrix and LAPACK: what the best matrix of `rank` keeps of ||D||^2.
double best_energy(const Matrix& d, int64_t rows, int64_t cols, int64_t rank) {
  std::vector<float> gram(static_cast<size_t>(cols * cols)), values(static_cast<size_t>(cols));
  for (int64_t i = 0; i < cols; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r)
        sum += d[static_cast<size_t>(r * cols + i)] * d[static_cast<size_t>(r * cols + j)];
      gram[static_cast<size_t>(i * cols + j)] = static_cast<float>(sum);
    }
  EXPECT_TRUE(dense::eigenvectors(cols, gram.data(), cols, values.data()));
  double kept = 0, all = 0;
  for (int64_t k = 0; k < cols; ++k) {
    const double value = std::max(double{values[static_cast<size_t>(cols - 1 - k)]}, 0.0);
    all += value;
    if (k < rank) kept += value;
  }
  return kept / all;
}

class Extracting : public Merging {
 protected:
  std::filesystem::path base_path() const { return adapters_ / "base.safetensors"; }
  std::filesystem::path tuned_path() const { return adapters_ / "tuned.safetensors"; }
  std::filesystem::path lora_path() const { return adapters_ / "lora.safetensors"; }

  /// Adds a parameter to both models; `difference` is what the files hold.
  void add(const std::string& name, const Shape& shape, const Matrix& difference) {
    std::mt19937_64 rng = test::test_rng();
    const std::vector<float> before = normal_floats(rng, difference.size());
    std::vector<float> after(before.size());
    Matrix& exact = differences_[name];
    for (size_t i = 0; i < before.size(); ++i) {
      after[i] = static_cast<float>(double{before[i]} + difference[i]);
      exact.push_back(double{after[i]} - double{before[i]});
    }
    base_.tensors.emplace_back(name, f32_tensor(shape, before));
    tuned_.tensors.emplace_back(name, f32_tensor(shape, after));
  }
  void add_random(const std::string& name, const Shape& shape, double size = 0.1) {
    std::mt19937_64 rng = test::test_rng();
    rng.discard(name.size() * 1000);
    const std::vector<float> values = normal_floats(rng, element_count(shape).value(), size);
    add(name, shape, Matrix(values.begin(), values.end()));
  }
  void add_of_rank(const std::string& name, const Shape& shape, int64_t rank) {
    std::mt19937_64 rng = test::test_rng();
    const auto rows = shape[0], cols = static_cast<int64_t>(element_count(shape).value()) / rows;
    add(name, shape, Lora::random(rng, rows, cols, rank, 0.2).delta());
  }
  Extraction extract(ExtractOptions options) {
    test::write_raw(base_path(), base_);
    test::write_raw(tuned_path(), tuned_);
    return again(std::move(options));
  }
  Extraction again(ExtractOptions options) {
    options.overwrite = true;
    Extraction result =
        extract_lora(checkpoint::Model::open(base_path()), checkpoint::Model::open(tuned_path()), lora_path(), options);
    lora_ = result.written > 0 ? test::read_raw(lora_path()) : RawFile();
    return result;
  }
  static const ExtractedTensor& find(const Extraction& result, const std::string& name) {
    for (const ExtractedTensor& tensor : result.tensors)
      if (tensor.name == name) return tensor;
    ADD_FAILURE() << name;
    static const ExtractedTensor none;
    return none;
  }
  /// alpha / rank * up * down, from the bytes in the file.
  Matrix product(const std::string& key) const {
    const RawTensor& up_tensor = lora_.at(key + ".lora_up.weight");
    const RawTensor& down_tensor = lora_.at(key + ".lora_down.weight");
    const Matrix up = plain_values(up_tensor), down = plain_values(down_tensor);
    const auto rank = static_cast<size_t>(down_tensor.shape[0]), rows = static_cast<size_t>(up_tensor.shape[0]),
               cols = down.size() / rank;
    EXPECT_EQ(up_tensor.shape[1], down_tensor.shape[0]);
    const double scale = plain_values(lora_.at(key + ".alpha")).at(0) / static_cast<double>(rank);
    Matrix out(rows * cols, 0.0);
    for (size_t r = 0; r < rows; ++r)
      for (size_t k = 0; k < rank; ++k)
        for (size_t c = 0; c < cols; ++c) out[r * cols + c] += scale * up[r * rank + k] * down[k * cols + c];
    return out;
  }
  /// ||a - s b|| / ||a||
  static double distance(const Matrix& a, const Matrix& b, double s = 1) {
    EXPECT_EQ(a.size(), b.size());
    double rest = 0, all = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      rest += (a[i] - s * b[i]) * (a[i] - s * b[i]);
      all += a[i] * a[i];
    }
    return std::sqrt(rest / all);
  }

  RawFile base_, tuned_, lora_;
  std::map<std::string, Matrix> differences_;
};

TEST_F(Extracting, ADifferenceOfLowRankIsRecovered) {
  add_of_rank("blocks.0.q.weight", {96, 64}, 4);
  add_of_rank("blocks.0.conv1.weight", {24, 10, 5}, 3);
  add_of_rank("blocks.0.conv2.weight", {32, 8, 3, 3}, 4);
  add_of_rank("blocks.0.conv3.weight", {16, 4, 2, 3, 3}, 2);
  const Extraction result = extract({.rank = 4, .dtype = DType::f32});
  EXPECT_EQ(result.written, 4u);
  for (const auto& [name, difference] : differences_) {
    SCOPED_TRACE(name);
    const std::string layer = name.substr(0, name.size() - 7), key = "diffusion_model." + layer;
    // The difference is one of float32 numbers ten times as large, so it is of low rank up to some 1e-6 of itself.
    EXPECT_LT(distance(difference, product(key)), 1e-5);
    const ExtractedTensor& tensor = find(result, layer);
    EXPECT_EQ(tensor.key, key);
    EXPECT_NEAR(tensor.energy, 1, 1e-8);
    EXPECT_EQ(tensor.rank, 4);
    const Shape& shape = base_.at(name).shape;
    Shape up(shape.size(), 1), down = shape;
    up[0] = shape[0];
    up[1] = down[0] = 4;
    EXPECT_EQ(lora_.at(key + ".lora_up.weight").shape, up);
    EXPECT_EQ(lora_.at(key + ".lora_down.weight").shape, down);
    EXPECT_EQ(lora_.at(key + ".alpha"), f32_tensor({}, {4}));
  }
  // One rank less is not enough for two of them.
  const Extraction less = again({.rank = 3, .dtype = DType::f32});
  EXPECT_LT(find(less, "blocks.0.q").energy, 0.95);
  EXPECT_LT(find(less, "blocks.0.conv2").energy, 0.95);
  EXPECT_NEAR(find(less, "blocks.0.conv1").energy, 1, 1e-8);
}

TEST_F(Extracting, TheEnergyIsThatOfTheBestMatrix) {
  add_random("a.weight", {60, 48});
  add_random("conv.weight", {20, 6, 3, 3});
  Matrix falling(40 * 56, 0.0);  // singular values 0.8^k
  for (int64_t k = 0; k < 40; ++k) {
    const auto wave = [](int64_t n, int64_t i, int64_t f) {
      return std::cos(M_PI * (static_cast<double>(i) + 0.5) * static_cast<double>(f) / static_cast<double>(n)) *
             std::sqrt((f == 0 ? 1.0 : 2.0) / static_cast<double>(n));
    };
    for (int64_t r = 0; r < 40; ++r)
      for (int64_t c = 0; c < 56; ++c)
        falling[static_cast<size_t>(r * 56 + c)] +=
            std::pow(0.8, static_cast<double>(k)) * wave(40, r, k) * wave(56, c, k);
  }
  add("falling.weight", {40, 56}, falling);
  extract({});
  for (const int64_t rank : {1, 5, 16}) {
    const Extraction result = again({.rank = rank, .dtype = DType::f32});
    double kept = 0, all = 0;
    for (const auto& [name, difference] : differences_) {
      SCOPED_TRACE(name + " " + std::to_string(rank));
      const int64_t rows = base_.at(name).shape[0], cols = static_cast<int64_t>(difference.size()) / rows;
      const double best = best_energy(difference, rows, cols, rank);
      const ExtractedTensor& tensor = find(result, name.substr(0, name.size() - 7));
      EXPECT_LT(tensor.energy, best + 1e-5) << "nothing keeps more (Eckart-Young)";
      // Random spectra are flat, which is where randomized methods lose the most.
      EXPECT_GT(tensor.energy, best - (name == "falling.weight" ? 1e-5 : 0.01));
      EXPECT_LT(best, rank == 16 ? 1 : 0.999) << "the bound would not notice a whole copy";
      const double left = distance(difference, product(tensor.key));
      EXPECT_NEAR(tensor.energy, 1 - left * left, 1e-6);
      double size = 0, weight = 0;
      for (const double x : difference) size += x * x;
      for (const double x : plain_values(tuned_.at(name))) weight += x * x;
      EXPECT_NEAR(tensor.change, std::sqrt(size / weight), 1e-6);
      kept += tensor.energy * size;
      all += size;
    }
    EXPECT_NEAR(result.energy, kept / all, 1e-9);
  }
  const double best = 1 - std::pow(0.64, 5), whole = 1 - std::pow(0.64, 40);
  EXPECT_NEAR(find(again({.rank = 5, .dtype = DType::f32}), "falling").energy, best / whole, 1e-5);
}

TEST_F(Extracting, MergedIntoTheBaseItGivesTheTunedModel) {
  add_of_rank("blocks.0.q.weight", {96, 64}, 4);
  add_of_rank("blocks.0.conv.weight", {32, 8, 3, 3}, 4);
  add_random("blocks.0.q.bias", {96});
  add_random("blocks.0.norm.weight", {64});
  add_random("blocks.0.norm.scale", {64});
  add_random("blocks.0.modulation", {1, 6, 64});
  add_random("blocks.0.lone.bias", {8});
  add("blocks.0.same.weight", {8, 8}, Matrix(64, 0.0));
  const Extraction result = extract({.rank = 4, .dtype = DType::f32});
  EXPECT_EQ(result.identical, 1u);
  std::set<std::string> whole;
  for (const auto& [name, tensor] : lora_.tensors)
    if (name.find("diff", 16) != std::string::npos) whole.insert(name.substr(16));
  EXPECT_EQ(whole, (std::set<std::string>{"blocks.0.q.diff_b", "blocks.0.norm.diff", "blocks.0.norm.scale.diff",
                                          "blocks.0.modulation.diff", "blocks.0.lone.bias.diff"}));
  ConvertOptions options = merging({{lora_path().string(), 1}});
  options.merge_strict = true;
  const RawFile merged = convert(base_, options);
  for (const auto& [name, tensor] : tuned_.tensors) {
    SCOPED_TRACE(name);
    const Matrix got = plain_values(merged.at(name)), wanted = plain_values(tensor),
                 before = plain_values(base_.at(name));
    size_t changed = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], 2e-6);
      changed += std::abs(wanted[i] - before[i]) > 1e-4;
    }
    EXPECT_GE(changed, name == "blocks.0.same.weight" ? 0 : got.size() / 2);
  }
}

TEST_F(Extracting, AlphaAndStrengthScaleAsLoadersDo) {
  add_of_rank("a.weight", {40, 30}, 3);
  add_random("a.bias", {40});
  extract({.rank = 3, .dtype = DType::f32});
  const Matrix plain = product("diffusion_model.a");
  for (const double alpha : {1.0, 3.0, 64.0, -2.0}) {
    const Extraction result = again({.rank = 3, .alpha = alpha, .dtype = DType::f32});
    EXPECT_EQ(lora_.at("diffusion_model.a.alpha"), f32_tensor({}, {static_cast<float>(alpha)}));
    EXPECT_LT(distance(plain, product("diffusion_model.a")), 1e-6);
    EXPECT_NEAR(find(result, "a").energy, 1, 1e-8);
  }
  for (const double strength : {0.5, 2.0, -1.0}) {
    const Extraction result = again({.rank = 3, .alpha = 1, .strength = strength, .dtype = DType::f32});
    EXPECT_LT(distance(product("diffusion_model.a"), plain, strength), 1e-6);
    EXPECT_LT(distance(plain_values(lora_.at("diffusion_model.a.diff_b")), differences_["a.bias"], strength), 1e-6);
    EXPECT_NEAR(find(result, "a").energy, 1, 1e-8) << "of the whole difference";
    EXPECT_NEAR(find(result, "a.bias").energy, 1, 1e-8);
  }
}

TEST_F(Extracting, RanksEndWithTheLayer) {
  add_random("tall.weight", {20, 3});
  add_random("wide.weight", {2, 4, 3});
  add_random("row.weight", {1, 16});
  const Extraction result = extract({.rank = 32, .dtype = DType::f32});
  for (const auto& [name, rank] : std::map<std::string, int64_t>{{"tall", 3}, {"wide", 2}, {"row", 1}}) {
    EXPECT_EQ(find(result, name).rank, rank);
    EXPECT_EQ(lora_.at("diffusion_model." + name + ".alpha"), f32_tensor({}, {static_cast<float>(rank)}));
    EXPECT_LT(distance(differences_[name + ".weight"], product("diffusion_model." + name)), 1e-5);
  }
}

TEST_F(Extracting, QuantizedModelsAreDecoded) {
  add_of_rank("blocks.0.q.weight", {128, 128}, 4);
  test::write_raw(adapters_ / "plain.safetensors", base_);
  const auto plain = checkpoint::Model::open(adapters_ / "plain.safetensors");
  test::write_raw(tuned_path(), tuned_);
  for (const char* format : {"int8_row", "float8_e4m3fn", "nvfp4"}) {
    SCOPED_TRACE(format);
    execute(make_plan(plain, base_path(), {.to = format, .preset = "none"}, 1), plain, {.overwrite = true});
    const auto base = checkpoint::Model::open(base_path());
    execute(make_plan(base, adapters_ / "decoded.safetensors", {.to = "fp32", .preset = "none"}, 1), base,
            {.overwrite = true});
    const Matrix before = plain_values(test::read_raw(adapters_ / "decoded.safetensors").at("blocks.0.q.weight"));
    const Extraction result = again({.rank = 128, .dtype = DType::f32});
    Matrix difference = plain_values(tuned_.at("blocks.0.q.weight"));
    for (size_t i = 0; i < difference.size(); ++i) difference[i] -= before[i];
    EXPECT_LT(distance(difference, product("diffusion_model.blocks.0.q")), 1e-5);
    EXPECT_GT(distance(differences_["blocks.0.q.weight"], product("diffusion_model.blocks.0.q")), 1e-3)
        << "what quantization lost is a part of it";
    EXPECT_NE(result.tensors[0].from, "F32");
  }
}

TEST_F(Extracting, TensorsPairUpThroughPrefixes) {
  add_of_rank("blocks.0.q.weight", {16, 16}, 2);
  for (auto& [name, tensor] : base_.tensors) name.insert(0, "model.diffusion_model.");
  add_random("first_stage_model.decoder.conv_in.weight", {8, 4, 3, 3});
  add_random("first_stage_model.decoder.conv_in.bias", {8});
  base_.tensors.emplace_back("model.diffusion_model.old.weight", f32_tensor({1, 1}, {1}));
  tuned_.tensors.emplace_back("new.weight", f32_tensor({1, 1}, {1}));
  base_.tensors.emplace_back("model.diffusion_model.in.weight", f32_tensor({2, 2}, {1, 2, 3, 4}));
  tuned_.tensors.emplace_back("in.weight", f32_tensor({2, 3}, {1, 2, 3, 4, 5, 6}));
  tuned_.tensors.emplace_back("counter", RawTensor{"I64", {1}, std::string(8, '\7')});
  const Extraction result = extract({.rank = 2, .dtype = DType::f32});
  EXPECT_EQ(result.written, 1u);
  EXPECT_LT(distance(differences_["blocks.0.q.weight"], product("diffusion_model.blocks.0.q")), 1e-5);
  EXPECT_EQ(find(result, "first_stage_model.decoder.conv_in").reason, "ComfyUI applies no LoRA to this part");
  EXPECT_EQ(result.warnings,
            (std::vector<std::string>{
                "1 tensors have other shapes and are left out (first: model.diffusion_model.in.weight).",
                "1 tensors are only in the base and are left out (first: model.diffusion_model.old.weight).",
                "1 tensors are only in the tuned model and are left out (first: new.weight)."}));
  EXPECT_LT(result.energy, 0.99) << "what is left out counts as lost";
}

TEST_F(Extracting, TheBytesDoNotDependOnThreadsOrMemory) {
  add_random("a.weight", {300, 40});
  add_random("conv.weight", {150, 6, 3, 3});
  add_random("a.bias", {300});
  extract({});
  std::set<std::string> files;
  for (const int threads : {1, 3})
    for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{4096}}) {
      again({.rank = 8, .max_memory = memory, .threads = threads});
      files.insert(file_bytes(lora_path()));
    }
  EXPECT_EQ(files.size(), 1u);
  again({.rank = 7});
  EXPECT_FALSE(files.contains(file_bytes(lora_path())));
}

TEST_F(Extracting, WhatADtypeCannotHoldIsLeftOut) {
  add("a.weight", {4, 4}, Matrix(16, 0.0));
  add("b.weight", {4, 4}, Matrix(16, 0.0));
  std::vector<float> zeros(16, 0.0f), tiny(16, 1e-18f);
  base_.at("b.weight") = f32_tensor({4, 4}, zeros);
  tuned_.at("b.weight") = f32_tensor({4, 4}, tiny);
  Extraction result = extract({.dtype = DType::f16});
  EXPECT_EQ(result.written, 0u);
  EXPECT_EQ(result.identical, 1u);
  EXPECT_EQ(find(result, "b").reason, "its difference is lost in F16");
  EXPECT_EQ(result.energy, 0);
  EXPECT_FALSE(std::filesystem::exists(lora_path()));
  EXPECT_EQ(again({.dtype = DType::bf16}).written, 1u);
  // Beyond the largest float16.
  tuned_.at("b.weight") = f32_tensor({4, 4}, std::vector<float>(16, 1e12f));
  EXPECT_EQ(find(extract({.dtype = DType::f16}), "b").reason, "its difference is lost in F16");
  EXPECT_NEAR(find(again({.dtype = DType::bf16}), "b").energy, 1, 1e-3);
}

TEST_F(Extracting, EnergiesAreInTheMetadata) {
  add_random("a.weight", {30, 20});
  add_random("a.bias", {30});
  const Extraction result = extract({.rank = 5, .alpha = 2, .strength = 0.5});
  const auto made = nlohmann::json::parse(lora_.metadata.at("mezzotint")).at("extraction");
  EXPECT_EQ(made.at("rank"), 5);
  EXPECT_EQ(made.at("alpha"), 2);
  EXPECT_EQ(made.at("strength"), 0.5);
  EXPECT_EQ(made.at("dtype"), "F16");
  EXPECT_EQ(made.at("energy"), result.energy);
  EXPECT_EQ(made.at("layers").at("diffusion_model.a").at("energy"), find(result, "a").energy);
  EXPECT_EQ(made.at("layers").at("diffusion_model.a.diff_b").at("energy"), find(result, "a.bias").energy);
  EXPECT_LT(find(result, "a").energy, 0.9);
}

TEST_F(Extracting, BadRequestsAreRefusedBeforeTheWork) {
  add_random("a.weight", {8, 8});
  extract({});
  EXPECT_EQ(error_of([&] { again({.rank = 0}); }), "bad-option");
  EXPECT_EQ(error_of([&] { again({.alpha = 0}); }), "bad-option");
  EXPECT_EQ(error_of([&] { again({.strength = 0}); }), "bad-option");
  EXPECT_EQ(error_of([&] { again({.strength = NAN}); }), "bad-option");
  EXPECT_EQ(error_of([&] { again({.dtype = DType::i8}); }), "bad-option");
  const auto base = checkpoint::Model::open(base_path()), tuned = checkpoint::Model::open(tuned_path());
  EXPECT_EQ(error_of([&] { extract_lora(base, tuned, lora_path(), {}); }), "output-exists");
  EXPECT_EQ(error_of([&] { extract_lora(base, tuned, base_path(), {.overwrite = true}); }), "output-is-input");
  std::atomic<bool> cancel{true};
  EXPECT_EQ(error_of([&] { extract_lora(base, tuned, lora_path(), {.overwrite = true, .cancel = &cancel}); }),
            "cancelled");
  RawFile other;
  other.tensors.emplace_back("else.weight", f32_tensor({1, 1}, {1}));
  test::write_raw(tuned_path(), other);
  EXPECT_EQ(error_of([&] { again({}); }), "no-common-layers");
}

}  // namespace
}  // namespace mezzotint::convert
