#include <gmock/gmock.h>

#include <cmath>

#include "convert/conversion.h"
#include "convert/recordings.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/convert/optimizers/smoothing.h"
#include "mezzotint/convert/recipe.h"

// A smoothed conversion must give the very bytes of an ordinary one whose weight and statistics were smoothed
// beforehand.
namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;
using testing::HasSubstr;

constexpr int64_t kLayerRows = 64, kLayerCols = 160;

TEST(SmoothingFactors, FollowTheFormula) {
  // s = sqrt(x / w) is 4, 1/4, 1 over a geometric mean of 1.
  EXPECT_EQ(smoothing_factors(std::vector<float>{16, 1, 2}, std::vector<float>{1, 16, 2}, 0.5),
            (std::vector<float>{0.25f, 4, 1}));
  EXPECT_EQ(smoothing_factors(std::vector<float>{16, 1, 4}, std::vector<float>{1, 1, 1}, 1),
            (std::vector<float>{0.25f, 4, 1}));
  EXPECT_EQ(smoothing_factors(std::vector<float>{1, 9, 7}, std::vector<float>{16, 1, 4}, 0),
            (std::vector<float>{4, 0.25f, 1}))
      << "only weights";
  // Columns without a size have no say and stay as they are.
  EXPECT_EQ(smoothing_factors(std::vector<float>{16, 1, 2, 0, 5}, std::vector<float>{1, 16, 2, 3, 0}, 0.5),
            (std::vector<float>{0.25f, 4, 1, 1, 1}));
  EXPECT_EQ(smoothing_factors(std::vector<float>{0, 0}, std::vector<float>{1, 1}, 0.5), (std::vector<float>{1, 1}));
  // Rounded to bf16: 1 / sqrt(2) and sqrt(2).
  EXPECT_EQ(smoothing_factors(std::vector<float>{4, 1}, std::vector<float>{1, 1}, 0.5),
            (std::vector<float>{0.70703125f, 1.4140625f}));
  // No factor leaves the range of float16.
  const auto far = smoothing_factors(std::vector<float>{1e30f, 1e-30f}, std::vector<float>{1, 1}, 1);
  EXPECT_EQ(far, (std::vector<float>{0x1p-12f, 0x1p12f}));
}

TEST(SmoothingFactors, MomentsFollowTheInputs) {
  const std::vector<float> factors = {2, 0.5f, 4};
  std::vector<float> rows = {1, 2, -1, 3, 4, 5};  // rows 1 and 2 of a triangle, 3 floats apart; -1 is above it
  smooth_moments(factors, 1, 2, rows.data());
  EXPECT_EQ(rows, (std::vector<float>{1, 0.5f, -1, 24, 8, 80}));
}

class Smoothed : public Conversion {
 protected:
  Smoothed() {
    inputs_ = test::make_inputs(rng_, 400, kLayerCols);
    for (size_t t = 0; t < inputs_.tokens; ++t)  // outlier channels, and one that is silent
      for (size_t j = 0; j < kLayerCols; ++j) {
        float& x = inputs_.x[t * kLayerCols + j];
        x *= j % 37 == 5 ? 20.0f : j == 90 ? 0.0f : 0.01f * static_cast<float>(j + 1);
      }
    values_.resize(static_cast<size_t>(kLayerRows * kLayerCols));
    std::normal_distribution<float> normal(0, 0.02f);
    for (size_t i = 0; i < values_.size(); ++i) values_[i] = i % kLayerCols == 33 ? 0.0f : normal(rng_);
    factors_ = expected_factors(0.5);
  }
  /// By the definition, independent of the code under test.
  std::vector<float> expected_factors(double alpha) const {
    std::vector<double> exponents(kLayerCols);
    std::vector<bool> known(kLayerCols);
    double sum = 0, count = 0;
    for (size_t j = 0; j < kLayerCols; ++j) {
      double x = 0, w = 0;
      for (size_t t = 0; t < inputs_.tokens; ++t) x = std::max(x, std::abs(double{inputs_.at(t, j)}));
      for (size_t r = 0; r < kLayerRows; ++r) w = std::max(w, std::abs(double{values_[r * kLayerCols + j]}));
      known[j] = x > 0 && w > 0;
      if (!known[j]) continue;
      exponents[j] = std::log2(std::pow(x, alpha) / std::pow(w, 1 - alpha));
      sum += exponents[j];
      ++count;
    }
    std::vector<float> factors(kLayerCols, 1.0f);
    for (size_t j = 0; j < kLayerCols; ++j)
      if (known[j]) factors[j] = Bf16::decode(Bf16::encode(static_cast<float>(std::exp2(sum / count - exponents[j]))));
    return factors;
  }
  static RawFile model(const std::vector<float>& values) {
    RawFile file;
    file.tensors.emplace_back("blocks.0.q.weight", f32_tensor({kLayerRows, kLayerCols}, values));
    file.tensors.emplace_back("blocks.0.q.bias", f32_tensor({kLayerRows}, std::vector<float>(kLayerRows, 0.5f)));
    return file;
  }
  std::string recorded(const test::Inputs& inputs, bool gram) const {
    const auto path = beside_ / "calibration.safetensors";
    test::write_raw(path, test::recording("blocks.0.q", inputs, gram));
    return path.string();
  }
  /// The recording as it would be of inputs that were multiplied by the factors.
  RawFile smoothed_statistics(bool gram) const {
    RawFile file = test::recording("blocks.0.q", inputs_, gram);
    const auto change = [&](const std::string& part, const auto& factor) {
      test::RawTensor& tensor = file.at("blocks.0.q." + part);
      std::vector<float> values(tensor.bytes.size() / sizeof(float));
      std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
      for (size_t i = 0; i < values.size(); ++i) values[i] *= factor(i);
      tensor.bytes = test::raw_bytes(values);
      return *std::max_element(values.begin(), values.end());
    };
    const float amax = change("channel_amax", [&](size_t j) { return factors_[j]; });
    change("channel_mean", [&](size_t j) { return factors_[j]; });
    change("second_moment", [&](size_t j) { return factors_[j] * factors_[j]; });
    file.at("blocks.0.q.amax") = f32_tensor({}, {amax});
    size_t row = 0, col = 0;
    if (gram)
      change("gram", [&](size_t) {
        const float factor = factors_[row] * factors_[col];
        if (col++ == row) {
          col = 0;
          ++row;
        }
        return factor;
      });
    return file;
  }
  static float largest_difference(const test::RawTensor& a, const test::RawTensor& b) {
    std::vector<float> x(a.bytes.size() / sizeof(float)), y(x.size());
    std::memcpy(x.data(), a.bytes.data(), a.bytes.size());
    std::memcpy(y.data(), b.bytes.data(), b.bytes.size());
    float largest = 0;
    for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
    return largest;
  }
  RawFile smoothed(ConvertOptions options, bool gram = false, int threads = 2) {
    options.to = "nvfp4";
    if (!options.smooth) options.smooth = 0.5;
    options.calibration = {recorded(inputs_, gram)};
    return convert(model(values_), options, threads);
  }

  std::mt19937_64 rng_ = test::test_rng();
  test::TemporaryFolder beside_;
  test::Inputs inputs_;
  std::vector<float> values_, factors_;
};

TEST_F(Smoothed, GivesTheBytesOfASmoothedProblem) {
  std::vector<float> values = values_;
  for (size_t i = 0; i < values.size(); ++i) values[i] *= 1 / factors_[i % kLayerCols];
  for (const bool gram : {false, true})
    for (const int effort : {0, 1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << "gram " << gram << ", effort " << effort);
      const RawFile got = smoothed({.effort = effort}, gram);
      expect_sound(out());
      const ConvertOptions options{.to = "nvfp4", .effort = effort, .calibration = {recorded(inputs_, gram)}};
      const RawFile plain = convert(model(values_), options);
      test::write_raw(options.calibration[0], smoothed_statistics(gram));
      const RawFile expected = convert(model(values), options);
      EXPECT_EQ(got.at("blocks.0.q.pre_quant_scale"), f32_tensor({kLayerCols}, factors_));
      EXPECT_EQ(got.tensors.size(), expected.tensors.size() + 1);
      for (const auto& [name, tensor] : expected.tensors) {
        if (name.ends_with(".bias")) {
          EXPECT_LT(largest_difference(got.at(name), tensor), 1e-4 * largest_difference(plain.at(name), tensor));
        } else {
          EXPECT_EQ(got.at(name), tensor) << name;
        }
        if (!name.ends_with(".comfy_quant") && !name.ends_with("weight_scale_2")) {
          EXPECT_NE(plain.at(name), tensor) << name << ": smoothing ought to change it";
        }
      }
    }
}

TEST_F(Smoothed, TheWeightComesBack) {
  const RawFile stored = smoothed({});
  std::filesystem::rename(out(), in());
  const RawFile after = convert({.to = "fp32"});
  std::vector<float> decoded(values_.size());
  std::memcpy(decoded.data(), after.at("blocks.0.q.weight").bytes.data(), decoded.size() * sizeof(float));
  // Rounding errors are those of the smoothed weight.
  double error = 0, size = 0, without = 0;
  for (size_t i = 0; i < decoded.size(); ++i) {
    const double w = values_[i], q = decoded[i], factor = factors_[i % kLayerCols];
    error += std::pow((q - w) / factor, 2);
    without += std::pow((q / factor - w) / factor, 2);
    size += std::pow(w / factor, 2);
  }
  EXPECT_LT(std::sqrt(error / size), 0.11) << "4-bit floats in blocks of 16";
  EXPECT_GT(std::sqrt(without / size), 0.5) << "negative control: without the factors it is another weight";
}

TEST_F(Smoothed, BytesDoNotDependOnThreadsOrTiles) {
  std::set<std::string> files;
  for (const int threads : {1, 3})
    for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{64} << 10}) {
      smoothed({.effort = 1, .max_memory = memory}, false, threads);
      files.insert(file_bytes(out()));
    }
  EXPECT_EQ(files.size(), 1u);
  smoothed({.effort = 1, .smooth = 0.75});
  EXPECT_FALSE(files.contains(file_bytes(out())));
}

TEST_F(Smoothed, ThePlanSaysWhatIsSmoothed) {
  smoothed({});
  const PlanRow& layer = row(plan_, "blocks.0.q");
  EXPECT_EQ(layer.smoothing, 0.5);
  EXPECT_THAT(layer.reason, HasSubstr("; smoothed"));
  const auto plan = nlohmann::json::parse(to_json(plan_));
  for (const auto& entry : plan["rows"])
    if (entry["name"] == "blocks.0.q") {
      EXPECT_EQ(entry["smoothing"], 0.5);
      EXPECT_FALSE(entry.contains("input_scale")) << "not known before the weight is read";
    }
  EXPECT_EQ(recipe_from_json(recipe_json(plan_.options)).smooth, 0.5);
  EXPECT_TRUE(plan_.warnings.empty()) << plan_.warnings[0];
  smoothed({.input_scale = "none"});
  EXPECT_EQ(test::read_raw(out()).find("blocks.0.q.input_scale"), nullptr);
  EXPECT_NE(test::read_raw(out()).find("blocks.0.q.pre_quant_scale"), nullptr);
}

TEST_F(Smoothed, LayersWithoutAPlaceForFactorsAreLeftAlone) {
  for (const std::string to : {"float8_e4m3fn", "int8_row", "mxfp8"}) {
    SCOPED_TRACE(to);
    const std::string path = recorded(inputs_, false);
    const RawFile without = convert(model(values_), {.to = to, .calibration = {path}});
    const RawFile after = convert(model(values_), {.to = to, .calibration = {path}, .smooth = 0.5});
    for (const auto& [name, tensor] : without.tensors) EXPECT_EQ(after.at(name), tensor) << name;
    EXPECT_EQ(after.tensors.size(), without.tensors.size());
    EXPECT_THAT(row(plan_, "blocks.0.q").reason, HasSubstr(" has no place for smoothing factors"));
    ASSERT_EQ(plan_.warnings.size(), 1u);
    EXPECT_THAT(plan_.warnings[0], HasSubstr("--smooth leaves 1 of 1 layers"));
  }
  // Statistics of one layer only.
  RawFile two = model(values_);
  two.tensors.emplace_back("blocks.0.k.weight", f32_tensor({kLayerRows, kLayerCols}, values_));
  const RawFile after = convert(two, {.to = "nvfp4", .calibration = {recorded(inputs_, false)}, .smooth = 0.5});
  EXPECT_NE(after.find("blocks.0.q.pre_quant_scale"), nullptr);
  EXPECT_EQ(after.find("blocks.0.k.pre_quant_scale"), nullptr);
  EXPECT_THAT(row(plan_, "blocks.0.k").reason, HasSubstr("not smoothed: no statistics"));
}

TEST_F(Smoothed, CodesThatStayAreNotSmoothed) {
  const RawFile before = convert(model(values_), {.to = "nvfp4"});
  const RawFile after = convert(before, {.to = "nvfp4", .calibration = {recorded(inputs_, false)}, .smooth = 0.5});
  EXPECT_EQ(after.at("blocks.0.q.weight"), before.at("blocks.0.q.weight"));
  EXPECT_EQ(after.find("blocks.0.q.pre_quant_scale"), nullptr);
  EXPECT_THAT(row(plan_, "blocks.0.q").reason, HasSubstr("not smoothed: its codes stay"));
}

TEST_F(Smoothed, BadRequestsAreRefused) {
  test::write_raw(in(), model(values_));
  const std::vector<std::string> files = {recorded(inputs_, false)};
  for (const ConvertOptions& options :
       {ConvertOptions{.to = "nvfp4", .smooth = 0.5},
        ConvertOptions{.to = "nvfp4", .calibration = files, .smooth = 1.5},
        ConvertOptions{.to = "nvfp4", .calibration = files, .smooth = std::nan("")},
        ConvertOptions{.to = "nvfp4", .calibration = files, .input_scale = "p99.9", .smooth = 0.5}})
    EXPECT_EQ(error_of([&] { plan(options); }), "bad-option");
  plan({.to = "nvfp4", .calibration = files, .input_scale = "p99.9"});
}

}  // namespace
}  // namespace mezzotint::convert
