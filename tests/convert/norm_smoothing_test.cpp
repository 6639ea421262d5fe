#include <gmock/gmock.h>

#include <cmath>

#include "convert/conversion.h"
#include "convert/interruption.h"
#include "convert/recordings.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/convert/compare.h"
#include "mezzotint/convert/correction/correction.h"

// Norms that take over smoothing factors: a conversion must give the very bytes of an ordinary one whose weights, norms
// and statistics were rescaled beforehand, by powers of two, so that the model in floats is the same to the bit.
namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;
using testing::Contains;
using testing::HasSubstr;

constexpr int64_t kWidth = 64, kInner = 48;

std::vector<float> values_of(const RawTensor& tensor) {
  if (tensor.dtype == "F32") {
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }
  std::vector<uint16_t> codes(tensor.bytes.size() / sizeof(uint16_t));
  std::memcpy(codes.data(), tensor.bytes.data(), tensor.bytes.size());
  std::vector<float> values;
  for (const uint16_t code : codes) values.push_back(Bf16::decode(code));
  return values;
}

RawTensor bf16_tensor(Shape shape, const std::vector<float>& values) {
  std::vector<uint16_t> codes;
  for (const float value : values) codes.push_back(Bf16::encode(value));
  return {"BF16", std::move(shape), test::raw_bytes(codes)};
}

class NormSmoothing : public Resume {
 protected:
  NormSmoothing() : attention_(outliers(5)), feed_forward_(outliers(23)) {}

  test::Inputs outliers(size_t channel) {
    test::Inputs inputs = test::make_inputs(rng_, 400, kWidth);
    for (size_t t = 0; t < inputs.tokens; ++t) {
      inputs.x[t * kWidth + channel] *= 40;
      inputs.x[t * kWidth + channel + 9] *= 0.01f;
    }
    return inputs;
  }

  std::vector<float> normal(int64_t count, float width) {
    std::normal_distribution<float> normal(0, width);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = normal(rng_);
    return values;
  }

  /// Two blocks in T5's names.
  RawFile t5() {
    RawFile file;
    for (const std::string block : {"encoder.block.0.", "encoder.block.1."}) {
      for (const std::string name : {"q", "k", "v"})
        file.tensors.emplace_back(block + "layer.0.SelfAttention." + name + ".weight",
                                  bf16_tensor({kInner, kWidth}, normal(kInner * kWidth, name == "k" ? 0.1f : 0.02f)));
      file.tensors.emplace_back(block + "layer.0.SelfAttention.o.weight",
                                bf16_tensor({kWidth, kInner}, normal(kInner * kWidth, 0.02f)));
      file.tensors.emplace_back(block + "layer.0.layer_norm.weight", bf16_tensor({kWidth}, normal(kWidth, 1)));
      for (const std::string name : {"wi_0", "wi_1"})
        file.tensors.emplace_back(block + "layer.1.DenseReluDense." + name + ".weight",
                                  f32_tensor({kInner, kWidth}, normal(kInner * kWidth, 0.02f)));
      file.tensors.emplace_back(block + "layer.1.layer_norm.weight", f32_tensor({kWidth}, normal(kWidth, 1)));
    }
    return file;
  }

  RawFile recordings() const {
    RawFile file;
    file.metadata["mezzotint_calibration"] = "1";
    for (const std::string block : {"encoder.block.0.", "encoder.block.1."}) {
      for (const std::string name : {"q", "k", "v"})
        test::add_recording(file, block + "layer.0.SelfAttention." + name, attention_, true);
      for (const std::string name : {"wi_0", "wi_1"})
        test::add_recording(file, block + "layer.1.DenseReluDense." + name, feed_forward_, true);
    }
    return file;
  }

  std::string recorded(const RawFile& file) const {
    const auto path = beside_ / "calibration.safetensors";
    test::write_raw(path, file);
    return path.string();
  }

  /// By the definition, over all that read the norm.
  static std::vector<float> expected_factors(const RawFile& file, const std::vector<std::string>& readers,
                                             const test::Inputs& inputs) {
    std::vector<double> exponents(kWidth);
    double sum = 0;
    for (size_t j = 0; j < kWidth; ++j) {
      double x = 0, w = 0;
      for (size_t t = 0; t < inputs.tokens; ++t) x = std::max(x, std::abs(double{inputs.at(t, j)}));
      for (const std::string& reader : readers) {
        const auto values = values_of(file.at(reader + ".weight"));
        for (size_t i = j; i < values.size(); i += kWidth) w = std::max(w, std::abs(double{values[i]}));
      }
      sum += exponents[j] = 0.5 * std::log2(x) - 0.5 * std::log2(w);
    }
    std::vector<float> factors;
    for (const double exponent : exponents) factors.push_back(std::exp2(std::round(sum / kWidth - exponent)));
    return factors;
  }

  /// Multiplies columns: of a weight, a norm or a statistic.
  static void scale(RawTensor& tensor, const std::vector<float>& factors, double power) {
    std::vector<float> values = values_of(tensor);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] *= std::pow(factors[i % factors.size()], static_cast<float>(power));
    tensor = tensor.dtype == "F32" ? f32_tensor(tensor.shape, values) : bf16_tensor(tensor.shape, values);
  }

  static void scale_statistics(RawFile& file, const std::string& layer, const std::vector<float>& factors) {
    for (const std::string part : {".channel_amax", ".channel_mean"}) scale(file.at(layer + part), factors, 1);
    scale(file.at(layer + ".second_moment"), factors, 2);
    const auto amax = values_of(file.at(layer + ".channel_amax"));
    file.at(layer + ".amax") = f32_tensor({}, {*std::max_element(amax.begin(), amax.end())});
    auto gram = values_of(file.at(layer + ".gram"));
    for (size_t i = 0, at = 0; i < kWidth; ++i)
      for (size_t j = 0; j <= i; ++j) gram[at++] *= factors[i] * factors[j];
    file.at(layer + ".gram") = f32_tensor({kWidth * (kWidth + 1) / 2}, gram);
  }

  /// What the file and the recordings would be had somebody smoothed the model by hand.
  void smooth_by_hand(RawFile& file, RawFile& calibration) const {
    for (const std::string block : {"encoder.block.0.", "encoder.block.1."}) {
      const std::string a = block + "layer.0.SelfAttention.", f = block + "layer.1.DenseReluDense.";
      smooth_group(file, calibration, block + "layer.0.layer_norm", {a + "q", a + "k", a + "v"}, attention_);
      smooth_group(file, calibration, block + "layer.1.layer_norm", {f + "wi_0", f + "wi_1"}, feed_forward_);
    }
  }
  static void smooth_group(RawFile& file, RawFile& calibration, const std::string& norm,
                           const std::vector<std::string>& readers, const test::Inputs& inputs) {
    const auto factors = expected_factors(file, readers, inputs);
    EXPECT_GE(*std::max_element(factors.begin(), factors.end()), 4) << "the case ought to need smoothing";
    for (const std::string& reader : readers) {
      scale(file.at(reader + ".weight"), factors, -1);
      scale_statistics(calibration, reader, factors);
    }
    scale(file.at(norm + ".weight"), factors, 1);
  }

  std::mt19937_64 rng_ = test::test_rng();
  test::TemporaryFolder beside_;
  test::Inputs attention_, feed_forward_;
};

void expect_same(const RawFile& got, const RawFile& expected) {
  EXPECT_EQ(got.tensors.size(), expected.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) EXPECT_EQ(got.at(name), tensor) << name;
}

TEST_F(NormSmoothing, GivesTheBytesOfAModelSmoothedByHand) {
  const RawFile model = t5();
  RawFile smoothed = model, calibration = recordings();
  smooth_by_hand(smoothed, calibration);
  const std::string q = "encoder.block.0.layer.0.SelfAttention.q";
  for (const std::string to : {"float8_e4m3fn", "int8_row", "int8_tensorwise", "mxfp8"})
    for (const int effort : {0, 1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << to << ", effort " << effort);
      ConvertOptions options{.to = to, .effort = effort, .calibration = {recorded(recordings())}};
      const RawFile plain = convert(model, options);
      options.smooth = 0.5;
      const RawFile got = convert(model, options);
      expect_sound(out());
      EXPECT_NE(got.at(q + ".weight"), plain.at(q + ".weight"));
      recorded(calibration);
      options.smooth.reset();
      expect_same(got, convert(smoothed, options));
    }
}

TEST_F(NormSmoothing, ThePlanSaysWhoTakesTheFactors) {
  convert(t5(), {.to = "float8_e4m3fn", .calibration = {recorded(recordings())}, .smooth = 0.5});
  EXPECT_THAT(row(plan_, "encoder.block.1.layer.1.DenseReluDense.wi_1").reason,
              HasSubstr("; smoothed, factors in encoder.block.1.layer.1.layer_norm.weight"));
  EXPECT_EQ(row(plan_, "encoder.block.1.layer.1.layer_norm.weight").action, Action::rescale);
  EXPECT_THAT(row(plan_, "encoder.block.0.layer.0.SelfAttention.o").reason, HasSubstr("no statistics of its inputs"));
  EXPECT_THAT(plan_.warnings, Contains(HasSubstr("Norms take over the smoothing factors of 10 layers: adapters")));
  EXPECT_THAT(plan_.warnings, Contains(HasSubstr("--smooth leaves 2 of 12 layers")));
  EXPECT_THAT(to_json(plan_), HasSubstr(R"("action": "rescale")"));
}

TEST_F(NormSmoothing, AFormatThatHasAPlaceKeepsTheNorm) {
  const RawFile model = t5();
  const RawFile got = convert(model, {.to = "nvfp4", .calibration = {recorded(recordings())}, .smooth = 0.5});
  for (const auto& [name, tensor] : model.tensors)
    if (name.find("norm") != std::string::npos) {
      EXPECT_EQ(got.at(name), tensor);
    }
  EXPECT_NE(got.find("encoder.block.0.layer.0.SelfAttention.q.pre_quant_scale"), nullptr);
}

TEST_F(NormSmoothing, ANormThatSomethingElseReadsStays) {
  const std::string a = "encoder.block.0.layer.0.SelfAttention.", norm = "encoder.block.0.layer.0.layer_norm.weight";
  const auto refusal = [&](const RawFile& model, const RawFile& calibration, ConvertOptions options = {}) {
    options.to = "float8_e4m3fn";
    options.calibration = {recorded(calibration)};
    options.smooth = 0.5;
    const RawFile got = convert(model, options);
    EXPECT_EQ(got.at(norm), model.at(norm));
    const ConvertOptions without{.to = options.to, .exclude = options.exclude, .calibration = options.calibration};
    EXPECT_EQ(got.at(a + "q.weight"), convert(model, without).at(a + "q.weight"));
    return row(plan(model, options), a + "q").reason;
  };
  const RawFile model = t5();
  EXPECT_THAT(refusal(model, recordings(), {.exclude = {"block\\.0\\..*\\.v$"}}),
              HasSubstr("because of " + a + "v.weight (it is not quantized)"));
  RawFile without = recordings();
  std::erase_if(without.tensors, [&](const auto& entry) { return entry.first.starts_with(a + "k."); });
  EXPECT_THAT(refusal(model, without), HasSubstr("because of " + a + "k (no statistics of its inputs)"));
  // Another norm in the block: whoever built this model may use the first one elsewhere, too.
  RawFile more = model;
  more.tensors.emplace_back("encoder.block.0.layer.0.post_norm.weight", more.at(norm));
  EXPECT_THAT(refusal(more, recordings()), HasSubstr("no norm in front is known"));
}

TEST_F(NormSmoothing, ColumnsThatANormCannotHoldStay) {
  RawFile model = t5();
  const std::string a = "encoder.block.0.layer.0.SelfAttention.", norm = "encoder.block.0.layer.0.layer_norm.weight";
  std::vector<float> values(kWidth, 1.0f);
  const auto factors = expected_factors(model, {a + "q", a + "k", a + "v"}, attention_);
  const size_t small = 5, large = 14;
  ASSERT_LT(factors[small], 1);
  ASSERT_GT(factors[large], 1);
  values[small] = 0x1.02p-126f;  // half of it is a denormal number that loses a bit
  values[large] = 0x1p127f;
  model.at(norm) = bf16_tensor({kWidth}, values);
  const RawFile got = convert(model, {.to = "float8_e4m3fn", .calibration = {recorded(recordings())}, .smooth = 0.5});
  const auto after = values_of(got.at(norm));
  for (size_t j = 0; j < kWidth; ++j) EXPECT_EQ(after[j], values[j] * (j == small || j == large ? 1 : factors[j])) << j;
}

TEST_F(NormSmoothing, ComparisonsTakeTheFactorsOff) {
  const RawFile model = t5();
  const ConvertOptions options{.to = "int8_row", .calibration = {recorded(recordings())}, .smooth = 0.5};
  convert(model, options);
  const auto original = checkpoint::Model::open(in());
  const Comparison result = compare(original, checkpoint::Model::open(out()), 2);
  EXPECT_EQ(result.rescaled, 10u + 4u);
  for (const LayerError& layer : result.layers) {
    if (layer.name.find("norm") != std::string::npos) {
      EXPECT_EQ(layer.relative_error, 0) << layer.name;
    } else {
      EXPECT_LT(layer.relative_error, 0.05) << layer.name;
    }
  }
  // The smoothed model in floats is the original, to the bit.
  std::filesystem::copy_file(out(), folder_ / "packed.safetensors");
  RawFile smoothed = model, calibration = recordings();
  smooth_by_hand(smoothed, calibration);
  test::write_raw(folder_ / "smoothed.safetensors", smoothed);
  for (const LayerError& layer : compare(original, checkpoint::Model::open(folder_ / "smoothed.safetensors"), 1).layers)
    EXPECT_EQ(layer.relative_error, 0) << layer.name;
  // Negative control: a norm that is a little off is not one that took factors.
  RawTensor& norm = smoothed.at("encoder.block.0.layer.0.layer_norm.weight");
  std::vector<float> values = values_of(norm);
  values[7] *= 1.5f;
  norm = bf16_tensor(norm.shape, values);
  test::write_raw(folder_ / "smoothed.safetensors", smoothed);
  const Comparison off = compare(original, checkpoint::Model::open(folder_ / "smoothed.safetensors"), 1);
  EXPECT_EQ(off.rescaled, 14u - 4u);
  EXPECT_GT(off.layers[0].relative_error, 0.5);

  const auto packed = checkpoint::Model::open(folder_ / "packed.safetensors");
  const Correction corrected = write_correction(original, packed, folder_ / "lora.safetensors", {.rank = 4});
  size_t left_out = 0;
  for (const CorrectedLayer& layer : corrected.layers)
    left_out += layer.reason == "the norm in front took over its smoothing factors";
  EXPECT_EQ(left_out, 10u);
}

TEST_F(NormSmoothing, BytesDoNotDependOnThreadsTilesOrInterruptions) {
  ConvertOptions options{.to = "float8_e4m3fn", .effort = 2, .calibration = {recorded(recordings())}, .smooth = 0.5};
  const RawFile model = t5();
  std::set<std::string> files;
  for (const int threads : {1, 3})
    for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{64} << 10}) {
      options.max_memory = memory;
      convert(model, options, threads);
      files.insert(file_bytes(out()));
    }
  options.max_memory = uint64_t{1} << 30;
  for (const double share : {0.3, 0.6, 0.95}) {
    std::filesystem::remove(out());
    interrupt(options, share, 1);
    resume(options, 2);
    files.insert(file_bytes(out()));
  }
  EXPECT_EQ(files.size(), 1u);
}

}  // namespace
}  // namespace mezzotint::convert
