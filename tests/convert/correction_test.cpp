#include "mezzotint/convert/correction/correction.h"

#include <cmath>

#include "convert/conversion.h"
#include "convert/recordings.h"
#include "mezzotint/convert/correction/lora_names.h"
#include "mezzotint/convert/correction/metric.h"
#include "mezzotint/convert/optimizers/method.h"

// Errors are made of known singular vectors (orthonormal cosines), so that what a correction of some rank can reach is
// known without a decomposition.
namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;
using Matrix = std::vector<double>;  // row-major

constexpr int64_t kCorrectedRows = 96, kCorrectedCols = 80;

/// Entry (i, k) of an orthonormal basis of R^n.
double cosine_basis(int64_t n, int64_t i, int64_t k) {
  const double size = static_cast<double>(n);
  return std::sqrt((k == 0 ? 1.0 : 2.0) / size) *
         std::cos(M_PI * (static_cast<double>(i) + 0.5) * static_cast<double>(k) / size);
}

/// U diag(values) V' with as many orthonormal vectors as there are values.
Matrix with_singular_values(const std::vector<double>& values) {
  Matrix out(static_cast<size_t>(kCorrectedRows * kCorrectedCols), 0.0);
  for (int64_t r = 0; r < kCorrectedRows; ++r)
    for (int64_t c = 0; c < kCorrectedCols; ++c)
      for (size_t k = 0; k < values.size(); ++k)
        out[static_cast<size_t>(r * kCorrectedCols + c)] +=
            values[k] * cosine_basis(kCorrectedRows, r, static_cast<int64_t>(k) + 1) *
            cosine_basis(kCorrectedCols, c, static_cast<int64_t>(k) + 2);
  return out;
}

double norm(const Matrix& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return std::sqrt(sum);
}

class Correcting : public Conversion {
 protected:
  std::filesystem::path original() const { return folder_ / "original.safetensors"; }
  std::filesystem::path codes() const { return folder_ / "codes.safetensors"; }
  std::filesystem::path lora() const { return folder_ / "lora.safetensors"; }
  std::filesystem::path calibration() const { return folder_ / "calibration.safetensors"; }

  /// An int8 file with layer "a", and an original that differs from it by `error`.
  void write_pair(const Matrix& error) {
    std::mt19937_64 rng = test::test_rng();
    RawFile plain;
    plain.tensors.emplace_back("a.weight", weight(rng, {kCorrectedRows, kCorrectedCols}, DType::f32));
    plain.tensors.emplace_back("a.bias", f32_tensor({kCorrectedRows}, std::vector<float>(kCorrectedRows, 1.0f)));
    test::write_raw(made_ / "in.safetensors", plain);
    run(made_ / "in.safetensors", codes(), {.to = "int8_row", .preset = "none", .include = {"a"}});
    run(codes(), made_ / "plain.safetensors", {.to = "fp32", .preset = "none"});
    decoded_ = values_of(test::read_raw(made_ / "plain.safetensors").at("a.weight"));
    std::vector<float> sum(decoded_.size());
    error_.resize(sum.size());
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] = static_cast<float>(decoded_[i] + error[i]);
      error_[i] = static_cast<double>(sum[i]) - decoded_[i];  // as the files have it
    }
    RawFile file;
    file.tensors.emplace_back("a.weight", f32_tensor({kCorrectedRows, kCorrectedCols}, sum));
    file.tensors.emplace_back("a.bias", f32_tensor({kCorrectedRows}, std::vector<float>(kCorrectedRows, 2.0f)));
    test::write_raw(original(), file);
  }
  static void run(const std::filesystem::path& from, const std::filesystem::path& to, const ConvertOptions& options) {
    const auto model = checkpoint::Model::open(from);
    execute(make_plan(model, to, options, 1), model, {.overwrite = true});
  }
  static Matrix values_of(const test::RawTensor& tensor) {
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return {values.begin(), values.end()};
  }
  Correction correct(CorrectionOptions options) const {
    options.overwrite = true;
    return write_correction(checkpoint::Model::open(original()), checkpoint::Model::open(codes()), lora(), options);
  }
  /// What is left of the error behind the LoRA in the file, as its loaders read it.
  Matrix rest() const {
    const RawFile file = test::read_raw(lora());
    const auto& up_tensor = file.at("diffusion_model.a.lora_up.weight");
    const auto& down_tensor = file.at("diffusion_model.a.lora_down.weight");
    EXPECT_EQ(up_tensor.dtype, "F32");
    const Matrix up = values_of(up_tensor), down = values_of(down_tensor);
    const int64_t rank = down_tensor.shape[0];
    EXPECT_EQ(up_tensor.shape, (Shape{kCorrectedRows, rank}));
    EXPECT_EQ(down_tensor.shape, (Shape{rank, kCorrectedCols}));
    EXPECT_EQ(file.at("diffusion_model.a.alpha"), f32_tensor({}, {static_cast<float>(rank)})) << "alpha / rank = 1";
    EXPECT_EQ(file.tensors.size(), 3u);
    Matrix left = error_;
    for (int64_t r = 0; r < kCorrectedRows; ++r)
      for (int64_t c = 0; c < kCorrectedCols; ++c)
        for (int64_t k = 0; k < rank; ++k)
          left[static_cast<size_t>(r * kCorrectedCols + c)] -=
              up[static_cast<size_t>(r * rank + k)] * down[static_cast<size_t>(k * kCorrectedCols + c)];
    return left;
  }

  test::TemporaryFolder made_;
  Matrix decoded_, error_;
};

std::vector<double> falling(size_t count, double first, double factor) {
  std::vector<double> values;
  for (size_t k = 0; k < count; ++k) values.push_back(first * std::pow(factor, static_cast<double>(k)));
  return values;
}

TEST_F(Correcting, AnErrorOfLowRankIsRecovered) {
  write_pair(with_singular_values({0.5, 0.3, 0.2, 0.1}));
  const Correction result = correct({.rank = 4, .dtype = DType::f32});
  ASSERT_EQ(result.written, 1u);
  // Float32 sums of some thousand products, and an original that float32 cannot hold the sum in exactly.
  EXPECT_LT(norm(rest()), 2e-6 * (norm(error_) + norm(decoded_)));
  EXPECT_LT(result.layers[0].weight_after, 1e-5 * result.layers[0].weight_before);
  EXPECT_NEAR(result.layers[0].weight_before, norm(error_) / norm([&] {
                                                Matrix sum = decoded_;
                                                for (size_t i = 0; i < sum.size(); ++i) sum[i] += error_[i];
                                                return sum;
                                              }()),
              1e-6);
  // One rank less leaves the smallest singular value.
  correct({.rank = 3, .dtype = DType::f32});
  EXPECT_NEAR(norm(rest()), 0.1, 1e-5);
}

TEST_F(Correcting, WhatIsLeftIsTheTailOfTheSingularValues) {
  const std::vector<double> values = falling(60, 0.5, 0.93);
  write_pair(with_singular_values(values));
  for (const int64_t rank : {1, 7, 20, 59}) {
    const Correction result = correct({.rank = rank, .dtype = DType::f32});
    double tail = 0;
    for (size_t k = static_cast<size_t>(rank); k < values.size(); ++k) tail += values[k] * values[k];
    const double least = std::sqrt(tail), found = norm(rest());
    EXPECT_GT(found, least * 0.999);
    EXPECT_LT(found, least * 1.01) << rank;
    EXPECT_NEAR(result.layers[0].weight_after / result.layers[0].weight_before, found / norm(error_), 1e-4);
  }
}

/// Statistics of strongly correlated inputs, damped as the correction does it: X'X / T + d.
class CorrectingOutputs : public Correcting {
 protected:
  void record(bool gram) {
    std::mt19937_64 rng = test::test_rng();
    const test::Inputs inputs = test::make_inputs(rng, 1000, kCorrectedCols);
    test::write_raw(calibration(), test::recording("a", inputs, gram));
    moments_.assign(static_cast<size_t>(kCorrectedCols * kCorrectedCols), 0.0);
    for (size_t t = 0; t < inputs.tokens; ++t)
      for (size_t i = 0; i < kCorrectedCols; ++i)
        for (size_t j = 0; j < kCorrectedCols; ++j)
          moments_[i * kCorrectedCols + j] += double{inputs.at(t, i)} * double{inputs.at(t, j)} / 1000;
    double trace = 0;
    for (size_t i = 0; i < kCorrectedCols; ++i) trace += moments_[i * kCorrectedCols + i];
    const double damping = damping_of(1000, kCorrectedCols) * trace / kCorrectedCols;
    for (size_t i = 0; i < kCorrectedCols; ++i)
      for (size_t j = 0; j < kCorrectedCols; ++j) {
        if (!gram && i != j) moments_[i * kCorrectedCols + j] = 0;
        if (i == j) moments_[i * kCorrectedCols + j] += damping;
      }
    // Cholesky, by its definition.
    factor_.assign(moments_.size(), 0.0);
    for (size_t i = 0; i < kCorrectedCols; ++i)
      for (size_t j = 0; j <= i; ++j) {
        double sum = moments_[i * kCorrectedCols + j];
        for (size_t k = 0; k < j; ++k) sum -= factor_[i * kCorrectedCols + k] * factor_[j * kCorrectedCols + k];
        factor_[i * kCorrectedCols + j] = i == j ? std::sqrt(sum) : sum / factor_[j * kCorrectedCols + j];
      }
  }
  Matrix times_factor(const Matrix& x) const {
    Matrix out(x.size(), 0.0);
    for (int64_t r = 0; r < kCorrectedRows; ++r)
      for (int64_t c = 0; c < kCorrectedCols; ++c)
        for (int64_t k = c; k < kCorrectedCols; ++k)
          out[static_cast<size_t>(r * kCorrectedCols + c)] +=
              x[static_cast<size_t>(r * kCorrectedCols + k)] * factor_[static_cast<size_t>(k * kCorrectedCols + c)];
    return out;
  }
  /// E with E C = `product`.
  Matrix divided_by_factor(Matrix product) const {
    for (int64_t r = 0; r < kCorrectedRows; ++r)
      for (int64_t c = kCorrectedCols - 1; c >= 0; --c) {
        double& value = product[static_cast<size_t>(r * kCorrectedCols + c)];
        for (int64_t k = c + 1; k < kCorrectedCols; ++k)
          value -= product[static_cast<size_t>(r * kCorrectedCols + k)] *
                   factor_[static_cast<size_t>(k * kCorrectedCols + c)];
        value /= factor_[static_cast<size_t>(c * kCorrectedCols + c)];
      }
    return product;
  }
  Matrix moments_, factor_;
};

TEST_F(CorrectingOutputs, DataDecideWhatIsCorrected) {
  for (const bool gram : {true, false}) {
    SCOPED_TRACE(gram);
    record(gram);
    const std::vector<double> values = falling(60, 0.5, 0.93);
    write_pair(divided_by_factor(with_singular_values(values)));
    double tail = 0;
    for (size_t k = 8; k < values.size(); ++k) tail += values[k] * values[k];

    correct({.rank = 8, .dtype = DType::f32});
    const double blind = norm(times_factor(rest())), blind_weight = norm(rest());
    const Correction result = correct({.rank = 8, .dtype = DType::f32, .calibration = {calibration()}});
    const double informed = norm(times_factor(rest())), informed_weight = norm(rest());
    EXPECT_GT(informed, std::sqrt(tail) * 0.999);
    EXPECT_LT(informed, std::sqrt(tail) * 1.01);
    EXPECT_GT(blind, informed * 1.05) << "the error of the weight is another objective";
    EXPECT_LT(blind_weight, informed_weight);
    EXPECT_EQ(result.layers[0].metric, gram ? CorrectionMetric::inputs : CorrectionMetric::moments);
    ASSERT_TRUE(result.layers[0].output_before.has_value());
    EXPECT_LT(*result.layers[0].output_after, *result.layers[0].output_before);
  }
}

TEST_F(CorrectingOutputs, ErrorsOfOutputsAreToldWithoutTheDamping) {
  record(true);
  write_pair(with_singular_values(falling(60, 0.5, 0.93)));
  const Correction result = correct({.rank = 8, .dtype = DType::f32, .calibration = {calibration()}});
  std::mt19937_64 rng = test::test_rng();
  const test::Inputs inputs = test::make_inputs(rng, 1000, kCorrectedCols);
  const auto output = [&](const Matrix& w) {
    double sum = 0;
    for (size_t t = 0; t < inputs.tokens; ++t)
      for (size_t r = 0; r < kCorrectedRows; ++r) {
        double y = 0;
        for (size_t c = 0; c < kCorrectedCols; ++c) y += w[r * kCorrectedCols + c] * double{inputs.at(t, c)};
        sum += y * y;
      }
    return std::sqrt(sum);
  };
  Matrix whole = decoded_;
  for (size_t i = 0; i < whole.size(); ++i) whole[i] += error_[i];
  EXPECT_NEAR(*result.layers[0].output_before / (output(error_) / output(whole)), 1, 1e-3);
  EXPECT_NEAR(*result.layers[0].output_after / (output(rest()) / output(whole)), 1, 1e-2);
}

TEST_F(CorrectingOutputs, TheBytesDoNotDependOnThreadsOrMemory) {
  record(true);
  write_pair(with_singular_values(falling(60, 0.5, 0.97)));
  std::set<std::string> files;
  for (const int threads : {1, 2, 5})
    for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{4096}}) {
      CorrectionOptions options{.rank = 8, .calibration = {calibration()}};
      options.threads = threads;
      options.max_memory = memory;
      correct(options);
      files.insert(file_bytes(lora()));
    }
  EXPECT_EQ(files.size(), 1u);
  correct({.rank = 7, .calibration = {calibration()}});
  EXPECT_FALSE(files.contains(file_bytes(lora())));
}

TEST_F(Correcting, NothingIsWrittenWhereNothingIsGained) {
  write_pair(Matrix(static_cast<size_t>(kCorrectedRows * kCorrectedCols), 0.0));
  const Correction same = correct({});
  EXPECT_EQ(same.written, 0u);
  EXPECT_EQ(same.identical, 1u);
  EXPECT_TRUE(same.layers.empty());
  EXPECT_FALSE(std::filesystem::exists(lora()));

  // Too small for the subnormals of float16: rounded, the factors are zeros.
  write_pair(with_singular_values({1e-16}));
  RawFile tiny = test::read_raw(codes());
  for (auto& [name, tensor] : tiny.tensors)
    if (name == "a.weight") tensor.bytes.assign(tensor.bytes.size(), '\0');
  test::write_raw(codes(), tiny);
  RawFile plain = test::read_raw(original());
  std::vector<float> small(static_cast<size_t>(kCorrectedRows * kCorrectedCols));
  const Matrix error = with_singular_values({1e-16});
  std::copy(error.begin(), error.end(), small.begin());
  plain.at("a.weight") = f32_tensor({kCorrectedRows, kCorrectedCols}, small);
  test::write_raw(original(), plain);
  const Correction nothing = correct({.rank = 1, .dtype = DType::f16});
  EXPECT_EQ(nothing.written, 0u);
  ASSERT_EQ(nothing.layers.size(), 1u);
  EXPECT_EQ(nothing.layers[0].reason, "a correction would not lower its error");
  EXPECT_EQ(correct({.rank = 1, .dtype = DType::bf16}).written, 1u);
}

TEST_F(Correcting, WideWeightsAreLeftAlone) {
  write_pair(with_singular_values({0.5}));
  RawFile plain = test::read_raw(original());
  RawFile wide = plain;
  wide.at("a.weight").bytes[1] ^= '\x40';
  test::write_raw(codes(), wide);
  EXPECT_EQ(correct({}).layers.size(), 0u) << "both are F32";
  wide.tensors.erase(wide.tensors.begin());
  test::write_raw(codes(), wide);
  EXPECT_EQ(error_of([&] { correct({}); }), "no-common-layers");
}

TEST_F(Correcting, BadRequestsAreRefusedBeforeTheWork) {
  write_pair(with_singular_values({0.5}));
  EXPECT_EQ(error_of([&] { correct({.rank = 0}); }), "bad-option");
  EXPECT_EQ(error_of([&] { correct({.dtype = DType::i8}); }), "bad-option");
  const auto a = checkpoint::Model::open(original()), b = checkpoint::Model::open(codes());
  EXPECT_EQ(error_of([&] { write_correction(a, b, codes(), {.overwrite = true}); }), "output-is-input");
  write_correction(a, b, lora(), {});
  EXPECT_EQ(error_of([&] { write_correction(a, b, lora(), {}); }), "output-exists");
  std::atomic<bool> cancel{true};
  EXPECT_EQ(error_of([&] { write_correction(a, b, lora(), {.overwrite = true, .cancel = &cancel}); }), "cancelled");
}

// More columns than a tile of X'X has.
TEST(CorrectionMetric, IsWhatInputsSay) {
  constexpr size_t kWide = 1100, kTokens = 60;
  std::mt19937_64 rng = test::test_rng();
  const test::Inputs inputs = test::make_inputs(rng, kTokens, kWide);
  const test::TemporaryFolder folder;
  test::write_raw(folder / "c.safetensors", test::recording("a", inputs, true));
  const Calibration calibration = Calibration::open({folder / "c.safetensors"});
  std::normal_distribution<float> normal;
  std::vector<float> e(2 * kWide);
  for (float& value : e) value = normal(rng);
  for (const double damping : {0.05, 0.5}) {
    const Metric metric(calibration, "a", *calibration.find("a"), damping, 3);
    ASSERT_TRUE(metric.whole());
    double expected = 0, trace = 0;
    for (size_t j = 0; j < kWide; ++j)
      for (size_t t = 0; t < kTokens; ++t) trace += std::pow(double{inputs.at(t, j)}, 2) / kTokens;
    EXPECT_NEAR(metric.damping() / (damping * trace / kWide), 1, 1e-5);
    for (size_t r = 0; r < 2; ++r)
      for (size_t t = 0; t < kTokens; ++t) {
        double y = 0;
        for (size_t j = 0; j < kWide; ++j) y += double{e[r * kWide + j]} * double{inputs.at(t, j)};
        expected += y * y / kTokens;
      }
    for (const float value : e) expected += metric.damping() * double{value} * double{value};
    EXPECT_NEAR(metric.energy(e.data(), 2) / expected, 1, 1e-4);

    // e C, as (C' e')', has that length, and is divided by C to e again; C x fits to C' e'.
    std::vector<float> columns(2 * kWide), product(2 * kWide);
    for (size_t j = 0; j < kWide; ++j)
      for (size_t r = 0; r < 2; ++r) columns[j * 2 + r] = e[r * kWide + j];
    const std::vector<float> back = metric.multiply_transposed(columns, 2, 3), forth = metric.multiply(columns, 2, 3);
    double length = 0, inner = 0, other = 0;
    for (size_t j = 0; j < kWide; ++j)
      for (size_t r = 0; r < 2; ++r) {
        product[r * kWide + j] = back[j * 2 + r];
        length += std::pow(double{back[j * 2 + r]}, 2);
        inner += double{back[j * 2 + r]} * double{columns[j * 2 + 1 - r]};
        other += double{forth[j * 2 + 1 - r]} * double{columns[j * 2 + r]};
      }
    EXPECT_NEAR(length / expected, 1, 1e-4);
    EXPECT_NEAR(inner, other, 1e-3 * length);
    metric.divide(2, product.data());
    for (size_t i = 0; i < e.size(); ++i) ASSERT_NEAR(product[i], e[i], 2e-3);
  }
  const Metric plain(static_cast<int64_t>(kWide));
  EXPECT_FALSE(plain.whole());
  EXPECT_EQ(plain.multiply(e, 2, 1), e);
}

TEST(LoraKeys, AreThoseOfComfyUi) {
  const auto key = [](const std::string& layer, std::vector<std::string> others = {}) {
    std::vector<io::TensorInfo> tensors;
    others.push_back(layer + ".weight");
    for (const auto& name : others) {
      io::TensorInfo info;
      info.name = name;
      info.shape = {64, 64};
      tensors.push_back(info);
    }
    return lora_key(find_components(tensors), layer);
  };
  EXPECT_EQ(key("blocks.0.q"), "diffusion_model.blocks.0.q");
  EXPECT_EQ(key("model.diffusion_model.blocks.0.q"), "diffusion_model.blocks.0.q");
  EXPECT_EQ(key("diffusion_model.blocks.0.q"), "diffusion_model.blocks.0.q");
  const std::string whole = "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q";
  EXPECT_EQ(key(whole, {"model.diffusion_model.a.weight"}), whole);
  EXPECT_EQ(key("encoder.block.0.layer.0.SelfAttention.q", {"encoder.block.0.layer.1.DenseReluDense.wi_0.weight"}),
            "text_encoders.transformer.encoder.block.0.layer.0.SelfAttention.q");
  EXPECT_EQ(key("first_stage_model.decoder.conv"), std::nullopt);
}

}  // namespace
}  // namespace mezzotint::convert
