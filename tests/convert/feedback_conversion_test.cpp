#include <cmath>

#include "convert/conversion.h"
#include "convert/recordings.h"
#include "mezzotint/checkpoint/weight_values.h"

// Conversions whose layers are rounded with feedback.
namespace mezzotint::convert {
namespace {

using test::RawFile;

class FeedbackConversion : public Conversion {
 protected:
  Outcome measured(const ConvertOptions& options, int threads = 2) {
    const auto model = checkpoint::Model::open(in());
    plan_ = make_plan(model, out(), options, threads);
    ExecuteOptions run{.overwrite = true, .measure = true};
    Progress last;
    run.progress = [&](const Progress& progress) { last = progress; };
    const Outcome outcome = execute(plan_, model, run);
    EXPECT_NEAR(last.work_done, last.work_total, 1e-6 * last.work_total);
    return outcome;
  }
  std::vector<float> values(const std::string& layer) const {
    const auto model = checkpoint::Model::open(out());
    for (const auto& entry : model.layers()) {
      if (entry.name != layer) continue;
      const checkpoint::WeightValues reader(model, entry);
      std::vector<float> out(static_cast<size_t>(entry.layout.total_rows() * entry.layout.cols));
      std::vector<std::byte> bytes;
      reader.read(0, out.size(), out.data(), bytes);
      return out;
    }
    ADD_FAILURE() << layer;
    return {};
  }

  std::mt19937_64 rng_ = test::test_rng();
};

TEST_F(FeedbackConversion, EveryFormatTakesIt) {
  RawFile model = small_model(rng_);
  model.tensors.emplace_back("blocks.0.experts.weight", weight(rng_, {3, 48, 64}));
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->writable || !format->quantized) continue;
    SCOPED_TRACE(format->name);
    test::write_raw(in(), model);
    const ConvertOptions options{.to = std::string(format->name), .effort = 3};
    const Outcome outcome = measured(options, 1);
    if (plan_.quantized_weights == 0) continue;
    expect_sound(out());
    const std::string one = file_bytes(out());
    for (const MeasuredLayer& layer : outcome.layers) {
      ASSERT_TRUE(layer.objective_ratio.has_value()) << layer.name;
      EXPECT_LT(*layer.objective_ratio, 0.97) << layer.name;
      EXPECT_EQ(layer.optimizer, "ldlq + 2 sweeps");
      EXPECT_GT(layer.errors.relative_error(), 0);
    }
    convert(options, 3);
    EXPECT_TRUE(file_bytes(out()) == one) << "threads";
    ConvertOptions little = options;
    little.max_memory = 1 << 20;
    convert(little, 2);
    EXPECT_TRUE(file_bytes(out()) == one) << "memory";
    EXPECT_EQ(names_in_folder().size(), 2u) << "the scratch file is gone";
  }
}

TEST_F(FeedbackConversion, WeighsByRecordedInputs) {
  // Inputs that lie in one direction: only errors along it matter.
  test::Inputs inputs = test::make_inputs(rng_, 512, 64);
  for (size_t t = 0; t < inputs.tokens; ++t)
    for (size_t j = 1; j < inputs.cols; ++j)
      inputs.x[t * inputs.cols + j] =
          inputs.x[t * inputs.cols] * (j % 2 == 0 ? 1.0f : -0.5f) + 0.05f * inputs.x[t * inputs.cols + j];
  RawFile recorded;
  recorded.metadata["mezzotint_calibration"] = "1";
  test::add_recording(recorded, "blocks.0.q", inputs, true);
  const test::TemporaryFolder beside;
  const std::string path = (beside / "calibration.safetensors").string();
  test::write_raw(path, recorded);
  RawFile model = small_model(rng_);
  test::write_raw(in(), model);

  for (const std::string to : {"int8_row", "float8_e4m3fn", "nvfp4", "int8_convrot"}) {
    SCOPED_TRACE(to);
    const auto output_error = [&](const ConvertOptions& options) {
      convert(options);
      const auto source = checkpoint::Model::open(in());
      const checkpoint::WeightValues original(source, source.source().find("blocks.0.q.weight"));
      std::vector<float> w(48 * 64);
      std::vector<std::byte> bytes;
      original.read(0, w.size(), w.data(), bytes);
      const std::vector<float> q = values("blocks.0.q");
      double sum = 0;
      for (size_t t = 0; t < inputs.tokens; ++t)
        for (size_t r = 0; r < 48; ++r) {
          double out = 0;
          for (size_t j = 0; j < 64; ++j)
            out += (double{q[r * 64 + j]} - double{w[r * 64 + j]}) * double{inputs.at(t, j)};
          sum += out * out;
        }
      return std::sqrt(sum);
    };
    const double plain = output_error({.to = to, .effort = 0});
    const double guessed = output_error({.to = to, .effort = 2});
    const double known = output_error({.to = to, .effort = 2, .calibration = {path}});
    EXPECT_LT(known, 0.5 * plain);
    EXPECT_LT(known, 0.6 * guessed);
  }
}

TEST_F(FeedbackConversion, CorrectsBiases) {
  const test::Inputs inputs = test::make_inputs(rng_, 512, 64);
  RawFile recorded;
  recorded.metadata["mezzotint_calibration"] = "1";
  test::Inputs shifted = inputs;
  for (float& x : shifted.x) x += 3.0f;
  test::add_recording(recorded, "blocks.0.q", shifted, false);
  const test::TemporaryFolder beside;
  const std::string path = (beside / "calibration.safetensors").string();
  test::write_raw(path, recorded);
  const RawFile model = small_model(rng_, DType::f32);
  const auto mean_error = [&](const ConvertOptions& options) {
    const RawFile after = convert(model, options);
    const auto floats = [](const RawFile& file, const std::string& name) {
      const std::string& bytes = file.at(name).bytes;
      std::vector<float> x(bytes.size() / sizeof(float));
      std::memcpy(x.data(), bytes.data(), bytes.size());
      return x;
    };
    const std::vector<float> w = floats(model, "blocks.0.q.weight"), q = values("blocks.0.q");
    const std::vector<float> before = floats(model, "blocks.0.q.bias"), now = floats(after, "blocks.0.q.bias");
    double worst = 0;
    for (size_t r = 0; r < 48; ++r) {
      double error = double{now[r]} - double{before[r]};
      for (size_t j = 0; j < 64; ++j) {
        double mean = 0;
        for (size_t t = 0; t < inputs.tokens; ++t)
          mean += double{shifted.at(t, j)} / static_cast<double>(inputs.tokens);
        error += (double{q[r * 64 + j]} - double{w[r * 64 + j]}) * mean;
      }
      worst = std::max(worst, std::abs(error));
    }
    EXPECT_EQ(floats(after, "blocks.1.q.bias"), floats(model, "blocks.1.q.bias")) << "not recorded";
    return worst;
  };
  for (const std::string to : {"float8_e4m3fn", "int8_convrot", "nvfp4"})
    for (const int effort : {1, 2}) {
      SCOPED_TRACE(testing::Message() << to << " effort " << effort);
      const double left = mean_error({.to = to, .effort = effort, .calibration = {path}, .no_bias_correction = true});
      const double corrected = mean_error({.to = to, .effort = effort, .calibration = {path}});
      EXPECT_LT(corrected, 1e-3 * left);
      EXPECT_EQ(row(plan_, "blocks.0.q.bias").action, Action::correct);
    }
}

TEST_F(FeedbackConversion, RefusesWhatMakesNoSense) {
  test::write_raw(in(), small_model(rng_));
  const auto error = [&](const ConvertOptions& options) -> std::string {
    try {
      plan(options);
    } catch (const Error& e) {
      return std::string(e.name());
    }
    return "";
  };
  EXPECT_EQ(error({.rounding = Rounding::Mode::stochastic, .effort = 2}), "bad-option");
  EXPECT_EQ(error({.rounding = Rounding::Mode::stochastic, .effort = 1}), "");
  EXPECT_EQ(error({.optimizer = "prodigy"}), "bad-option");
}

TEST_F(FeedbackConversion, WeightsThatAreNotFiniteAreRoundedPlainly) {
  RawFile model = small_model(rng_);
  auto& bytes = model.tensors[0].second.bytes;
  bytes[0] = '\x80';  // bf16 inf
  bytes[1] = '\x7f';
  test::write_raw(in(), model);
  const Outcome outcome = measured({.effort = 2});
  const std::string with = file_bytes(out());
  for (const MeasuredLayer& layer : outcome.layers)
    EXPECT_EQ(layer.objective_ratio.has_value(), layer.name != plan_.rows[0].name) << layer.name;
  EXPECT_FALSE(outcome.warnings.empty());
}

}  // namespace
}  // namespace mezzotint::convert
