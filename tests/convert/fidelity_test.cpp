#include "mezzotint/convert/fidelity/fidelity.h"

#include "convert/merging.h"
#include "mezzotint/convert/report/make_report.h"

namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;

struct GainAndResidual {
  double gain = 0, residual = 0;
};

GainAndResidual by_definition(const Matrix& before, const Matrix& after, const Matrix& delta) {
  double product = 0, square = 0, rest = 0;
  for (size_t i = 0; i < delta.size(); ++i) {
    const double e = after[i] - before[i];
    product += e * delta[i];
    square += delta[i] * delta[i];
    rest += (e - delta[i]) * (e - delta[i]);
  }
  return {product / square, std::sqrt(rest / square)};
}

class FidelityOfMerges : public Merging {
 protected:
  void SetUp() override {
    std::mt19937_64 rng = test::test_rng();
    base_.tensors.emplace_back("blocks.0.q.weight", f32_tensor({kRows, kCols}, normal_floats(rng, kRows * kCols)));
    base_.tensors.emplace_back("blocks.0.q.bias", f32_tensor({kRows}, normal_floats(rng, kRows)));
    base_.tensors.emplace_back("blocks.0.k.weight", f32_tensor({kRows, kCols}, normal_floats(rng, kRows * kCols)));
    lora_ = Lora::random(rng, kRows, kCols, 4);
    lora_.alpha = 2;
    lora_.write(file_, "diffusion_model.blocks.0.q");
  }
  std::filesystem::path base_path() const { return adapters_ / "base.safetensors"; }
  std::filesystem::path output_path() const { return adapters_ / "output.safetensors"; }
  void save(const RawFile& output) {
    test::write_raw(base_path(), base_);
    test::write_raw(output_path(), output);
  }
  Fidelity measure(const FidelityOptions& options) const {
    return measure_fidelity(checkpoint::Model::open(base_path()), checkpoint::Model::open(output_path()), options);
  }
  Fidelity measure(const RawFile& output, double strength = 1) {
    save(output);
    return measure({.loras = {lora_file(file_, strength)}});
  }
  /// The base with `factor` times the adapter and noise in the weight that it is for.
  RawFile moved(double factor, double noise = 0) const {
    std::mt19937_64 rng = test::test_rng();
    rng.discard(12345);
    RawFile file = base_;
    const Matrix w = plain_values(base_.at("blocks.0.q.weight")), d = lora_.delta();
    const std::vector<float> n = normal_floats(rng, w.size());
    std::vector<float> values(w.size());
    for (size_t i = 0; i < w.size(); ++i)
      values[i] = static_cast<float>(w[i] + factor * d[i] + noise * static_cast<double>(n[i]));
    file.at("blocks.0.q.weight") = f32_tensor({kRows, kCols}, values);
    return file;
  }

  static constexpr int64_t kRows = 96, kCols = 80;
  RawFile base_, file_;
  Lora lora_;
};

TEST_F(FidelityOfMerges, GainsAreThoseOfTheDefinition) {
  for (const double factor : {1.0, 0.4, 0.0, -1.0, 1.5}) {
    SCOPED_TRACE(factor);
    const Fidelity plain = measure(moved(factor));
    ASSERT_EQ(plain.tensors.size(), 1u);
    const TensorFidelity& tensor = plain.tensors[0];
    EXPECT_EQ(tensor.name, "blocks.0.q");
    EXPECT_EQ(tensor.patches, 1u);
    EXPECT_NEAR(tensor.gain, factor, 1e-4);
    EXPECT_NEAR(tensor.residual, std::abs(1 - factor), 1e-4);
    EXPECT_EQ(tensor.vanished(), factor < 0.5);
    EXPECT_EQ(plain.vanished, factor < 0.5 ? 1u : 0u);
    EXPECT_EQ(plain.gain, tensor.gain);

    const RawFile noisy = moved(factor, 0.02);
    const auto expected = by_definition(plain_values(base_.at("blocks.0.q.weight")),
                                        plain_values(noisy.at("blocks.0.q.weight")), lora_.delta());
    EXPECT_GT(std::abs(expected.residual - std::abs(1 - factor)), 0.1) << "noise that shows";
    const Fidelity result = measure(noisy);
    EXPECT_NEAR(result.tensors[0].gain, expected.gain, 1e-4);
    EXPECT_NEAR(result.tensors[0].residual, expected.residual, 1e-4);
    double d2 = 0, w2 = 0;
    for (const double x : lora_.delta()) d2 += x * x;
    for (const double x : plain_values(base_.at("blocks.0.q.weight"))) w2 += x * x;
    EXPECT_NEAR(tensor.delta, std::sqrt(d2 / w2), 1e-6);
  }
  EXPECT_NEAR(measure(moved(1), 0.5).tensors[0].gain, 2, 1e-4) << "the strength that is asked for counts";
}

TEST_F(FidelityOfMerges, WhatIsMergedIsFound) {
  RawFile bias = file_;
  std::mt19937_64 rng = test::test_rng();
  bias.tensors.emplace_back("diffusion_model.blocks.0.q.diff_b", f32_tensor({kRows}, normal_floats(rng, kRows, 0.1)));
  Lora other = Lora::random(rng, kRows, kCols, 3);
  RawFile second;
  other.write(second, "diffusion_model.blocks.0.k");
  other.write(second, "diffusion_model.blocks.0.q");
  const std::vector<MergeLora> loras{lora_file(bias, 0.7, "one"), lora_file(second, -1, "two")};
  save(convert(base_, merging(loras)));
  const Fidelity dampened = measure({.loras = loras});
  EXPECT_EQ(dampened.measured, 3u);
  EXPECT_EQ(dampened.vanished, 0u);
  for (const TensorFidelity& tensor : dampened.tensors) {
    SCOPED_TRACE(tensor.name);
    EXPECT_NEAR(tensor.gain, 1, 1e-5);
    EXPECT_LT(tensor.residual, 1e-5);
    EXPECT_EQ(tensor.patches, tensor.name == "blocks.0.q" ? 2u : 1u);
  }
  const Fidelity full = measure({.loras = loras, .dampen = false});
  EXPECT_EQ(full.tensors[0].name, "blocks.0.k");
  EXPECT_NEAR(full.tensors[0].gain, 0.9, 1e-5);
}

// DoRA: W' = m V / |V| of every row, V = W + delta; not a sum, and not one of the delta of its factors alone.
TEST_F(FidelityOfMerges, EffectsThatAreNoSumsAreMeasuredOnTheBase) {
  std::mt19937_64 rng = test::test_rng();
  std::vector<float> magnitude = normal_floats(rng, kRows);
  for (float& m : magnitude) m = 9 + m;
  file_.tensors.emplace_back("diffusion_model.blocks.0.q.dora_scale", f32_tensor({kRows, 1}, magnitude));
  const Matrix w = plain_values(base_.at("blocks.0.q.weight"));
  Matrix delta = lora_.delta();
  for (size_t r = 0; r < kRows; ++r) {
    double square = 0;
    for (size_t c = 0; c < kCols; ++c) square += std::pow(w[r * kCols + c] + delta[r * kCols + c], 2);
    for (size_t c = 0; c < kCols; ++c) {
      const size_t i = r * kCols + c;
      delta[i] = static_cast<double>(magnitude[r]) * (w[i] + delta[i]) / std::sqrt(square) - w[i];
    }
  }
  const RawFile output = moved(0.5, 0.01);
  const auto expected = by_definition(w, plain_values(output.at("blocks.0.q.weight")), delta);
  const Fidelity result = measure(output);
  EXPECT_NEAR(result.tensors[0].gain, expected.gain, 1e-5);
  EXPECT_NEAR(result.tensors[0].residual, expected.residual, 1e-5);
  EXPECT_GT(
      std::abs(by_definition(w, plain_values(output.at("blocks.0.q.weight")), lora_.delta()).gain - expected.gain),
      0.1);
}

TEST_F(FidelityOfMerges, RoundingThatLosesAnAdapterIsSeen) {
  std::mt19937_64 rng = test::test_rng();
  RawFile plain, file;
  constexpr int64_t kSize = 256;
  plain.tensors.emplace_back("blocks.0.q.weight", f32_tensor({kSize, kSize}, normal_floats(rng, kSize * kSize)));
  // 1 % of the weight.
  const Lora lora = Lora::random(rng, kSize, kSize, 16, 0.05);
  lora.write(file, "diffusion_model.blocks.0.q");
  const MergeLora option = lora_file(file);
  test::write_raw(adapters_ / "plain.safetensors", plain);
  const auto run = [&](const std::filesystem::path& from, const std::filesystem::path& to,
                       const ConvertOptions& options) {
    const auto model = checkpoint::Model::open(from);
    execute(make_plan(model, to, options, 1), model, {.overwrite = true});
  };
  run(adapters_ / "plain.safetensors", base_path(), {.to = "nvfp4", .preset = "none"});
  const auto decoded = [&](const std::filesystem::path& path) {
    run(path, adapters_ / "decoded.safetensors", {.to = "fp32", .preset = "none"});
    return plain_values(test::read_raw(adapters_ / "decoded.safetensors").at("blocks.0.q.weight"));
  };
  double gains[2];
  for (const MergeRounding rounding : {MergeRounding::nearest, MergeRounding::feedback}) {
    ConvertOptions options = merging({option});
    options.merge_rounding = rounding;
    run(base_path(), output_path(), options);
    const Fidelity result = measure({.loras = {option}});
    const auto expected = by_definition(decoded(base_path()), decoded(output_path()), lora.delta());
    EXPECT_NEAR(result.tensors[0].gain, expected.gain, 1e-4);
    EXPECT_NEAR(result.tensors[0].residual, expected.residual, 1e-3);
    gains[rounding == MergeRounding::feedback] = result.tensors[0].gain;
  }
  EXPECT_LT(gains[0], kVanishedGain);
  EXPECT_GT(gains[1], kVanishedGain);

  Fidelity result = measure({.loras = {option}});
  save(plain);
  std::filesystem::remove(output_path());
  run(adapters_ / "plain.safetensors", base_path(), {.to = "nvfp4", .preset = "none"});
  std::filesystem::copy_file(base_path(), output_path());
  result = measure({.loras = {option}});
  EXPECT_EQ(result.tensors[0].gain, 0) << "a copy has nothing of it";
  EXPECT_NEAR(result.tensors[0].residual, 1, 1e-12);
}

TEST_F(FidelityOfMerges, LongWeightsAreCutAndThreadsDoNotMatter) {
  std::mt19937_64 rng = test::test_rng();
  constexpr int64_t kLong = 5000, kShort = 256;
  base_.tensors[0].second = f32_tensor({kLong, kShort}, normal_floats(rng, kLong * kShort));
  lora_ = Lora::random(rng, kLong, kShort, 4);
  file_ = {};
  lora_.write(file_, "diffusion_model.blocks.0.q");
  RawFile output = base_;
  const std::vector<float> noise = normal_floats(rng, kLong * kShort, 0.1);
  const Matrix w = plain_values(base_.tensors[0].second), delta = lora_.delta();
  std::vector<float> values(w.size());
  for (size_t i = 0; i < w.size(); ++i) values[i] = static_cast<float>(w[i] + delta[i] + static_cast<double>(noise[i]));
  output.tensors[0].second = f32_tensor({kLong, kShort}, values);
  save(output);
  const MergeLora option = lora_file(file_);
  const auto expected = by_definition(w, plain_values(output.tensors[0].second), delta);
  uint64_t last = 0;
  const Fidelity one = measure({.loras = {option}, .threads = 1, .progress = [&](uint64_t done, uint64_t total) {
                                  EXPECT_EQ(total, uint64_t{kLong * kShort * 4});
                                  last = done;
                                }});
  EXPECT_EQ(last, uint64_t{kLong * kShort * 4});
  EXPECT_NEAR(one.tensors[0].gain, expected.gain, 1e-5);
  EXPECT_NEAR(one.tensors[0].residual, expected.residual, 1e-4);
  const Fidelity three = measure({.loras = {option}, .threads = 3});
  EXPECT_EQ(one.tensors[0].gain, three.tensors[0].gain);
  EXPECT_EQ(one.tensors[0].residual, three.tensors[0].residual);
}

TEST_F(FidelityOfMerges, EnlargedWeightsAreComparedInTheirNewShape) {
  std::mt19937_64 rng = test::test_rng();
  lora_ = Lora::random(rng, kRows, kCols + 16, 4);
  file_ = {};
  lora_.write(file_, "diffusion_model.blocks.0.q");
  file_.tensors.emplace_back("diffusion_model.blocks.0.q.reshape_weight",
                             f32_tensor({2}, {static_cast<float>(kRows), static_cast<float>(kCols + 16)}));
  const MergeLora option = lora_file(file_);
  save(convert(base_, merging({option})));
  const Fidelity result = measure({.loras = {option}});
  ASSERT_EQ(result.measured, 1u);
  EXPECT_EQ(result.tensors[0].shape, (Shape{kRows, kCols + 16}));
  EXPECT_NEAR(result.tensors[0].gain, 1, 1e-5);
  EXPECT_LT(result.tensors[0].residual, 1e-5);
  save(base_);
  EXPECT_EQ(measure({.loras = {option}}).tensors[0].reason, "the other model's has another shape");
}

TEST_F(FidelityOfMerges, WhatCannotBeMeasuredSaysWhy) {
  RawFile without = base_;
  without.tensors.erase(without.tensors.begin());
  EXPECT_EQ(measure(without).tensors[0].reason, "the other model has no such tensor");
  const Fidelity still = measure(moved(1), 0);
  EXPECT_EQ(still.tensors[0].reason, "the adapters change nothing in it");
  EXPECT_FALSE(still.tensors[0].vanished());
  EXPECT_EQ(still.measured, 0u);
  RawFile broken = moved(1);
  const float nan = NAN;
  std::memcpy(broken.at("blocks.0.q.weight").bytes.data() + 40, &nan, sizeof nan);
  const Fidelity result = measure(broken);
  EXPECT_EQ(result.tensors[0].non_finite, 1u);
  EXPECT_NEAR(result.tensors[0].gain, 1, 1e-4);

  save(base_);
  EXPECT_EQ(error_of([&] { measure(FidelityOptions{}); }), "bad-option");
  RawFile other;
  lora_.write(other, "diffusion_model.blocks.9.q");
  EXPECT_EQ(error_of([&] { measure({.loras = {lora_file(other, 1, "other")}}); }), "adapter-unrelated");
  lora_.write(other, "diffusion_model.blocks.0.q");
  const MergeLora both = lora_file(other, 1, "both");
  EXPECT_EQ(measure({.loras = {both}}).warnings.size(), 1u);
  EXPECT_EQ(error_of([&] { measure({.loras = {both}, .strict = true}); }), "unmatched-adapter-keys");
}

TEST_F(FidelityOfMerges, ReportsNameWhatIsLost) {
  Lora other = lora_;
  other.write(file_, "diffusion_model.blocks.0.k");
  for (const double factor : {0.1, 1.0}) {
    RawFile output = moved(factor);
    const Matrix w = plain_values(base_.at("blocks.0.k.weight")), d = other.delta();
    std::vector<float> values(w.size());
    for (size_t i = 0; i < w.size(); ++i) values[i] = static_cast<float>(w[i] + d[i]);
    output.at("blocks.0.k.weight") = f32_tensor({kRows, kCols}, values);
    const Fidelity fidelity = measure(output);
    const auto a = checkpoint::Model::open(base_path()), b = checkpoint::Model::open(output_path());
    Report report = make_report(compare(a, b, 1), a, b);
    add_fidelity(report, fidelity);
    size_t notes = 0;
    for (const ReportLayer& layer : report.layers) {
      if (layer.name == "blocks.0.q")
        notes += layer.note ==
                 (factor == 1 ? "adapters: gain 1.000, residual 0.000" : "adapters: gain 0.100, residual 0.900");
      if (layer.name == "blocks.0.k") notes += layer.note == "adapters: gain 1.000, residual 0.000";
    }
    EXPECT_EQ(notes, 2u);
    std::string warnings;
    for (const ReportWarning& warning : report.warnings) warnings += warning.text;
    if (factor == 1) {
      EXPECT_EQ(warnings, "");
    } else {
      EXPECT_EQ(warnings.find("Less than half of the adapters is left in 1 of 2 tensors: blocks.0.q. "), 0u)
          << warnings;
      EXPECT_NE(report_json(report).find("bypass"), std::string::npos);
      EXPECT_NE(report_html(report).find("adapters: gain 0.100"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace mezzotint::convert
