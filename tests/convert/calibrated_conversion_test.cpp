#include <gmock/gmock.h>

#include <cmath>

#include "convert/conversion.h"
#include "convert/recordings.h"
#include "mezzotint/convert/optimizers/bias_correction.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/formats/parallel.h"

namespace mezzotint::convert {
namespace {

using test::make_inputs;
using test::RawFile;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

class Calibrated : public Conversion {
 protected:
  /// Statistics of both blocks of small_model().
  RawFile statistics() {
    RawFile file;
    file.metadata["mezzotint_calibration"] = "1";
    double width = 1;
    for (const std::string layer : {"blocks.0.q", "blocks.0.up", "blocks.1.q", "blocks.1.up"})
      test::add_recording(file, layer, make_inputs(rng_, 300, 64, width *= 2), false);
    return file;
  }
  std::string put(const RawFile& file, const std::string& name = "calibration.safetensors") const {
    test::write_raw(beside_ / name, file);
    return (beside_ / name).string();
  }
  static float number(const test::RawTensor& tensor) {
    EXPECT_EQ(tensor.dtype, "F32");
    EXPECT_TRUE(tensor.shape.empty());
    float value = 0;
    std::memcpy(&value, tensor.bytes.data(), sizeof value);
    return value;
  }

  std::mt19937_64 rng_ = test::test_rng();
  test::TemporaryFolder beside_;
};

TEST_F(Calibrated, EveryFormatGetsTheScaleThatItsLoadersRead) {
  const RawFile model = small_model(rng_), recorded = statistics();
  const std::string path = put(recorded);
  size_t with_scale = 0;
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->writable || !layout_of(std::string(format->name), {48, 64})) continue;
    SCOPED_TRACE(format->name);
    const std::string to(format->name);
    const RawFile without = convert(model, {.to = to, .effort = 0});
    const RawFile after = convert(model, {.to = to, .effort = 0, .calibration = {path}, .no_bias_correction = true});
    expect_sound(out());
    size_t extra = 0;
    for (const auto& [name, tensor] : after.tensors) {
      if (!name.ends_with(".input_scale")) {
        EXPECT_EQ(tensor, without.at(name)) << name << ": plain rounding does not depend on inputs";
        continue;
      }
      ++extra;
      const float amax = number(recorded.at(name.substr(0, name.rfind('.')) + ".amax"));
      EXPECT_EQ(number(tensor), amax / format->input_scale_divisor);
    }
    size_t quantized = 0;
    for (const PlanRow& entry : plan_.rows)
      if (entry.layout && format->quantized) {
        ++quantized;
        EXPECT_NE(entry.statistics, nullptr);
        EXPECT_EQ(entry.input_scale.has_value(), format->input_scale_divisor != 0);
      }
    EXPECT_EQ(extra, format->input_scale_divisor != 0 ? quantized : 0);
    EXPECT_EQ(after.tensors.size(), without.tensors.size() + extra);
    with_scale += extra;
    // The next reader takes it for what it is.
    const auto reread = checkpoint::Model::open(out());
    for (const auto& layer : reread.layers())
      EXPECT_EQ(layer.input_scale.has_value(), format->input_scale_divisor != 0);
  }
  EXPECT_GE(with_scale, 3u);
}

TEST_F(Calibrated, PercentilesAndNoneAreOptions) {
  const std::string path = put(statistics());
  const RawFile model = small_model(rng_);
  const auto scale = [&](const std::string& rule) {
    const RawFile after = convert(model, {.calibration = {path}, .input_scale = rule});
    const auto* tensor = after.find("blocks.0.q.input_scale");
    return tensor == nullptr ? 0 : number(*tensor);
  };
  const float amax = scale("amax"), high = scale("p99"), low = scale("p50");
  EXPECT_EQ(high, Calibration::open({path}).find("blocks.0.q")->percentile(99) / 448);
  EXPECT_LT(high, amax);
  EXPECT_LT(low, high / 2);
  EXPECT_EQ(scale("none"), 0);
  EXPECT_EQ(error_of([&] { scale("most"); }), "bad-option");
}

TEST_F(Calibrated, KeptCodesGetANewScaleAndLoseTheOld) {
  const RawFile eight = convert(small_model(rng_));
  RawFile file = eight;
  file.tensors.emplace_back("blocks.0.q.input_scale", test::f32_tensor({}, {3}));
  file.tensors.emplace_back("blocks.1.q.input_scale", test::f32_tensor({}, {5}));
  RawFile recorded;
  recorded.metadata["mezzotint_calibration"] = "1";
  test::add_recording(recorded, "blocks.0.q", make_inputs(rng_, 300, 64), false);
  const RawFile after = convert(file, {.calibration = {put(recorded)}});
  EXPECT_EQ(row(plan_, "blocks.0.q").action, Action::keep_codes);
  EXPECT_EQ(number(after.at("blocks.0.q.input_scale")), number(recorded.at("blocks.0.q.amax")) / 448);
  EXPECT_EQ(number(after.at("blocks.1.q.input_scale")), 5);
  EXPECT_EQ(after.find("blocks.0.up.input_scale"), nullptr);
  for (const auto& [name, tensor] : eight.tensors) EXPECT_EQ(after.at(name), tensor);
  EXPECT_EQ(after.tensors.size(), eight.tensors.size() + 2);
  expect_sound(out());
  EXPECT_EQ(number(convert(file, {.calibration = {put(recorded)}, .input_scale = "none"}).at("blocks.0.q.input_scale")),
            3);
}

TEST_F(Calibrated, RecipesWantTheSameFilesAgain) {
  const RawFile recorded = statistics();
  const std::string path = put(recorded);
  const RawFile first = convert(small_model(rng_), {.calibration = {path}, .input_scale = "p99"});
  const std::string text = nlohmann::ordered_json::parse(first.metadata.at("mezzotint")).at("recipe").dump();
  EXPECT_EQ(text.find("calibration.safetensors"), std::string::npos) << "paths are nobody's business";
  ConvertOptions replay = recipe_from_json(text);
  EXPECT_EQ(replay.calibration_fingerprint, Calibration::open({path}).fingerprint_text());
  EXPECT_EQ(error_of([&] { plan(replay); }), "calibration-needed");
  replay.calibration = {put(statistics(), "other.safetensors")};
  EXPECT_EQ(error_of([&] { plan(replay); }), "calibration-differs");
  replay.calibration = {put(recorded, "moved.safetensors")};
  const RawFile second = convert(replay);
  EXPECT_EQ(second.tensors, first.tensors);
  EXPECT_EQ(second.metadata, first.metadata);
  // Without calibration nothing of it is in the recipe.
  EXPECT_EQ(recipe_json(plan(ConvertOptions{}).options).find("calibration"), std::string::npos);
}

TEST_F(Calibrated, WhatDoesNotMatchIsSaid) {
  const RawFile model = small_model(rng_);
  RawFile recorded;
  recorded.metadata["mezzotint_calibration"] = "1";
  test::add_recording(recorded, "blocks.0.q", make_inputs(rng_, 30, 64), false);
  test::add_recording(recorded, "blocks.9.q", make_inputs(rng_, 300, 64), false);
  test::add_recording(recorded, "blocks.1.up", {300, 64, std::vector<float>(300 * 64, 0.0f)}, false);
  const Plan said = plan(model, {.calibration = {put(recorded)}});
  EXPECT_THAT(said.warnings, Contains(AllOf(HasSubstr("1 of 3 layers"), HasSubstr("blocks.9.q"))));
  EXPECT_THAT(said.warnings, Contains(AllOf(HasSubstr("2 of 4 layers"), HasSubstr("no statistics"))));
  EXPECT_THAT(said.warnings, Contains(HasSubstr("nothing but zeros")));
  EXPECT_THAT(said.warnings, Contains(HasSubstr("30 tokens")));
  EXPECT_FALSE(row(said, "blocks.1.up").input_scale.has_value());
  EXPECT_GT(said.peak_memory, plan(model).peak_memory);
  EXPECT_THAT(plan(model, {.calibration = {put(statistics())}}).warnings, ElementsAre());

  RawFile narrow;
  narrow.metadata = recorded.metadata;
  test::add_recording(narrow, "blocks.0.q", make_inputs(rng_, 300, 48), false);
  EXPECT_EQ(error_of([&] { plan(model, {.calibration = {put(narrow)}}); }), "calibration-mismatch");
  RawFile foreign;
  foreign.metadata = recorded.metadata;
  test::add_recording(foreign, "layers.0", make_inputs(rng_, 300, 64), false);
  EXPECT_EQ(error_of([&] { plan(model, {.calibration = {put(foreign)}}); }), "calibration-unrelated");
}

TEST_F(Calibrated, OneRecordingIsNotTakenForTwoLayers) {
  RawFile model;
  for (const std::string prefix : {"model.diffusion_model.", "text_encoders.t5xxl."})
    model.tensors.emplace_back(prefix + "blocks.0.q.weight", weight(rng_, {48, 64}));
  const std::string path = put(test::recording("blocks.0.q", make_inputs(rng_, 300, 64)));
  const RawFile one = convert(model, {.calibration = {path}});
  EXPECT_NE(one.find("model.diffusion_model.blocks.0.q.input_scale"), nullptr);
  EXPECT_EQ(one.find("text_encoders.t5xxl.blocks.0.q.input_scale"), nullptr);
  EXPECT_EQ(error_of([&] { plan({.component = "all", .calibration = {path}}); }), "calibration-ambiguous");
}

TEST_F(Calibrated, BytesDoNotDependOnThreads) {
  const std::string path = put(statistics());
  const RawFile model = small_model(rng_);
  convert(model, {.calibration = {path}}, 1);
  const std::string one = file_bytes(out());
  convert(model, {.calibration = {path}}, 4);
  EXPECT_EQ(file_bytes(out()), one);
}

// --- bias correction ------------------------------------------------------------------------------------------------

/// Mean over tokens of W x + b, in double.
std::vector<double> mean_outputs(const std::vector<float>& w, const std::vector<float>& bias,
                                 const test::Inputs& inputs) {
  std::vector<double> means(bias.begin(), bias.end());
  for (size_t r = 0; r < means.size(); ++r)
    for (size_t t = 0; t < inputs.tokens; ++t)
      for (size_t j = 0; j < inputs.cols; ++j)
        means[r] += double{w[r * inputs.cols + j]} * double{inputs.at(t, j)} / static_cast<double>(inputs.tokens);
  return means;
}

TEST(BiasCorrection, KeepsTheMeanOutput) {
  auto rng = test::test_rng();
  const size_t rows = 24, cols = 96;
  const auto w = test::make_values(test::awkward_inputs()[0], rng, rows, cols);
  const test::Inputs inputs = make_inputs(rng, 200, cols);
  std::vector<float> mean(cols), bias(rows, 0.25f);
  for (size_t j = 0; j < cols; ++j) {
    double sum = 0;
    for (size_t t = 0; t < inputs.tokens; ++t) sum += double{inputs.at(t, j)};
    mean[j] = static_cast<float>(sum / 200);
  }
  for (const char* format : {"int8_tensorwise", "float8_e4m3fn"}) {
    SCOPED_TRACE(format);
    const auto layout = layout_of(format, {static_cast<int64_t>(rows), static_cast<int64_t>(cols)}).value();
    const formats::Tile whole{w.data(), DType::f32, 0, layout.rows, 0, layout.cols, layout.cols};
    const auto quantized = formats::quantize(layout, whole, {}, {}, 1);
    std::vector<float> decoded(rows * cols), correction(rows), corrected(bias), wrong(bias);
    formats::decode_rows(layout, quantized.parameters, 0, layout.rows, quantized.parameters.tensors[0].data(),
                         decoded.data());
    bias_correction(w.data(), decoded.data(), layout.rows, layout.cols, layout.cols, mean.data(), correction.data());
    for (size_t r = 0; r < rows; ++r) {
      corrected[r] += correction[r];
      wrong[r] -= correction[r];
    }
    const auto wanted = mean_outputs(w, bias, inputs);
    const auto distance = [&](const std::vector<float>& b) {
      const auto found = mean_outputs(decoded, b, inputs);
      double most = 0;
      for (size_t r = 0; r < rows; ++r) most = std::max(most, std::abs(found[r] - wanted[r]));
      return most;
    };
    // Means and the bias are stored in float32: half an ulp of each, times the weights' errors and 1.
    double bound = 0;
    for (size_t r = 0; r < rows; ++r) {
      double row_bound = 0x1p-24 * (1 + std::abs(double{corrected[r]}) + std::abs(double{correction[r]}));
      for (size_t j = 0; j < cols; ++j)
        row_bound +=
            0x1p-24 * std::abs(double{mean[j]}) * std::abs(double{w[r * cols + j]} - double{decoded[r * cols + j]});
      bound = std::max(bound, row_bound);
    }
    EXPECT_LE(distance(corrected), bound);
    EXPECT_GT(distance(bias), 100 * bound) << "negative control: without a correction";
    EXPECT_GT(distance(wrong), 1.9 * distance(bias)) << "negative control: the sign";
  }
}

TEST(BiasCorrection, LeavesOutWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  const float w[] = {1, inf, 2, 3}, decoded[] = {0.5f, 448, 2, 1}, mean[] = {4, 8};
  float correction[2];
  bias_correction(w, decoded, 2, 2, 2, mean, correction);
  EXPECT_EQ(correction[0], 2);
  EXPECT_EQ(correction[1], 16);
}

}  // namespace
}  // namespace mezzotint::convert
