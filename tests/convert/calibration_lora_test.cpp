#include <fmt/format.h>

#include "convert/feedback_case.h"
#include "convert/lora_cases.h"
#include "convert/recordings.h"
#include "mezzotint/convert/lora_aware/use.h"

// Rounding that spares the inputs of adapters (convert --calibration-lora).
namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::test_rng;

/// Rows that are orthonormal, by Gram and Schmidt in double.
Matrix orthonormal_rows(const std::vector<float>& rows, size_t cols) {
  Matrix basis;
  for (size_t at = 0; at < rows.size(); at += cols) {
    Matrix row(rows.begin() + static_cast<ptrdiff_t>(at), rows.begin() + static_cast<ptrdiff_t>(at + cols));
    for (int round = 0; round < 2; ++round)
      for (size_t b = 0; b < basis.size(); b += cols) {
        double share = 0;
        for (size_t i = 0; i < cols; ++i) share += basis[b + i] * row[i];
        for (size_t i = 0; i < cols; ++i) row[i] -= share * basis[b + i];
      }
    const double length = std::sqrt(squares(row));
    for (const double x : row) basis.push_back(x / length);
  }
  return basis;
}

struct Seen {
  double inside = 0, all = 0;  // ||E P|| and ||E||
};

Seen errors_seen(const Matrix& e, const Matrix& basis, size_t cols) {
  Seen seen;
  for (size_t at = 0; at < e.size(); at += cols)
    for (size_t b = 0; b < basis.size(); b += cols) {
      double sum = 0;
      for (size_t i = 0; i < cols; ++i) sum += e[at + i] * basis[b + i];
      seen.inside += sum * sum;
    }
  return {std::sqrt(seen.inside), std::sqrt(squares(e))};
}

std::vector<float> as_floats(const Matrix& values) {
  return {values.begin(), values.end()};
}

// H = G / mean(diag G) + weight V V' + damping I, whatever the columns' order, the tiles and the segments.
TEST(BasisWeight, IsAddedToTheMoments) {
  auto rng = test_rng();
  constexpr int64_t rows = 40, cols = 320, rank = 6;
  const std::vector<float> basis = as_floats(orthonormal_rows(normal_floats(rng, rank * cols), cols));
  std::vector<float> gram = correlated_gram(cols);
  for (int64_t a = 0; a < cols; ++a)  // different diagonals, so that the order is no natural one
    for (int64_t b = 0; b < cols; ++b)
      gram[static_cast<size_t>(a * cols + b)] *= static_cast<float>((1 + 7 * a % 5) * (1 + 7 * b % 5));
  const double damping = 0.05, weight = 9;
  double mean = 0;
  for (int64_t i = 0; i < cols; ++i) mean += double{gram[static_cast<size_t>(i * cols + i)]} / cols;
  std::vector<float> sum = gram;  // G + weight * mean * V V': by itself it has another mean diagonal
  double sum_mean = 0;
  for (int64_t a = 0; a < cols; ++a)
    for (int64_t b = 0; b < cols; ++b) {
      double dot = 0;
      for (int64_t k = 0; k < rank; ++k)
        dot += double{basis[static_cast<size_t>(k * cols + a)]} * double{basis[static_cast<size_t>(k * cols + b)]};
      float& h = sum[static_cast<size_t>(a * cols + b)];
      h += static_cast<float>(weight * mean * dot);
      if (a == b) sum_mean += double{h} / cols;
    }
  for (const std::string format : {"int8_row", "nvfp4"}) {
    const Case c(format, rows, cols);
    ObjectiveOptions options{.moments = Moments::inputs, .damping = damping, .sweeps = 1};
    options.basis_weight = weight;
    const RoundedLayer got = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), options, 1, nullptr, basis);
    const RoundedLayer without = round_layer(c.layout, c.parameters, c.w.data(), gram.data(),
                                             {.moments = Moments::inputs, .damping = damping, .sweeps = 1}, 1);
    // Energies in units of the moments' mean diagonal.
    const double unit = sum_mean / mean, same_damping = damping / unit;
    EXPECT_NEAR(got.sums.rounded / (unit * energy(c, got.values, sum, same_damping)), 1, 1e-3) << format;
    EXPECT_GT(share_different(got.values, without.values), 0.05) << format;
    EXPECT_LT(got.sums.rounded, 0.97 * unit * energy(c, without.values, sum, same_damping)) << format;
  }
  // By way of a random rotation the basis is rotated, too.
  {
    const Case c("int8_row", rows, cols);
    ObjectiveOptions options{.moments = Moments::inputs, .damping = damping};
    options.basis_weight = weight;
    const RoundedLayer ldlq = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), options, 1, nullptr, basis);
    options.signs = 7;
    const RoundedLayer quip = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), options, 2, nullptr, basis);
    const double unit = sum_mean / mean;
    EXPECT_NEAR(quip.sums.rounded / (unit * energy(c, quip.values, sum, damping / unit)), 1, 1e-3);
    EXPECT_GT(quip.sums.rows_rotated, 0) << "a basis that is not rotated helps no row";
    EXPECT_LE(quip.sums.rounded, ldlq.sums.rounded);
  }
  // Segments see the columns that are theirs.
  const Case c("int8_row", rows, cols);
  ObjectiveOptions cut{.moments = Moments::inputs, .damping = damping};
  cut.segment = 160;
  cut.basis_weight = weight;
  const RoundedLayer segments = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), cut, 2, nullptr, basis);
  Matrix e(c.w.size());
  for (size_t i = 0; i < e.size(); ++i) e[i] = double{segments.values[i]} - double{c.w[i]};
  cut.basis_weight = 0;
  const RoundedLayer blind = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), cut, 2);
  Matrix e_blind(e.size());
  for (size_t i = 0; i < e.size(); ++i) e_blind[i] = double{blind.values[i]} - double{c.w[i]};
  const Matrix v(basis.begin(), basis.end());
  EXPECT_LT(errors_seen(e, v, cols).inside, 0.7 * errors_seen(e_blind, v, cols).inside);
}

class CalibrationLora : public Merging {
 protected:
  static constexpr const char* kWeightName = "blocks.0.q.weight";

  void start(const std::vector<float>& w, const Lora& lora) {
    w_.assign(w.begin(), w.end());
    base_.tensors = {{kWeightName, test::f32_tensor({lora.rows, lora.cols}, w)}};
    cols_ = static_cast<size_t>(lora.cols);
    basis_ = orthonormal_rows(lora.down, cols_);
    RawFile file;
    lora.write(file, "blocks.0.q");
    lora_ = lora_file(file);
  }
  /// Errors of a conversion, relative to the weight.
  Seen seen(ConvertOptions options, bool sparing) {
    options.preset = "none";
    if (sparing) options.calibration_loras = {lora_};
    const RawFile packed = convert(base_, options);
    const Plan made = plan_;
    last_ = made.rows[0].method;
    Matrix e = plain_values(convert(packed, {.to = "fp32", .preset = "none"}).at(kWeightName));
    for (size_t i = 0; i < e.size(); ++i) e[i] -= w_[i];
    const Seen got = errors_seen(e, basis_, cols_);
    const double size = std::sqrt(squares(w_));
    return {got.inside / size, got.all / size};
  }

  RawFile base_;
  Matrix w_, basis_;
  size_t cols_ = 0;
  MergeLora lora_;
  Method last_;
};

TEST_F(CalibrationLora, SparesTheAdaptersInputs) {
  start(low_rank_base(), smooth_lora());
  for (const std::string to : {"float8_e4m3fn", "int8_row", "int8_blockwise", "int8_convrot", "nvfp4"})
    for (const int effort : {1, 2, 3}) {
      const Seen plain = seen({.to = to, .effort = effort}, false), sparing = seen({.to = to, .effort = effort}, true);
      SCOPED_TRACE(fmt::format("{} effort {}: inside {:.5f} -> {:.5f}, all {:.5f} -> {:.5f} ({})", to, effort,
                               plain.inside, sparing.inside, plain.all, sparing.all, last_.label));
      EXPECT_LT(sparing.inside, 0.4 * plain.inside);
      EXPECT_LT(sparing.all, 1.1 * plain.all);
      EXPECT_NE(last_.label.find("for the inputs of adapters"), std::string::npos);
    }
  // The control: another space is not spared.
  auto rng = test_rng();
  const Matrix elsewhere = orthonormal_rows(normal_floats(rng, basis_.size()), cols_);
  const Seen sparing = seen({.to = "int8_row"}, true);
  basis_ = elsewhere;
  EXPECT_GT(seen({.to = "int8_row"}, true).inside, 2 * sparing.inside);
}

TEST_F(CalibrationLora, GoesWithData) {
  auto rng = test_rng();
  constexpr int64_t rows = 192, cols = 256;
  start(normal_floats(rng, rows * cols), Lora::random(rng, rows, cols, 6));
  const auto recorded = test::recording("blocks.0.q", test::make_inputs(rng, 900, cols), true);
  test::write_raw(adapters_ / "recording.safetensors", recorded);
  for (const std::string to : {"int8_row", "nvfp4", "int8_convrot"})
    for (const int effort : {2, 3}) {
      ConvertOptions options{.to = to, .effort = effort};
      options.calibration = {(adapters_ / "recording.safetensors").string()};
      const Seen plain = seen(options, false), sparing = seen(options, true);
      SCOPED_TRACE(fmt::format("{} effort {}: inside {:.5f} -> {:.5f}, all {:.5f} -> {:.5f} ({})", to, effort,
                               plain.inside, sparing.inside, plain.all, sparing.all, last_.label));
      EXPECT_EQ(last_.objective->moments, Moments::inputs);
      EXPECT_LT(sparing.inside, 0.4 * plain.inside);
      EXPECT_LT(sparing.all, 1.1 * plain.all);
    }
  // Weights and inputs that are smoothed: the space is that of the smoothed inputs.
  ConvertOptions smoothed{.to = "nvfp4", .effort = 2};
  smoothed.calibration = {(adapters_ / "recording.safetensors").string()};
  smoothed.smooth = 0.5;
  const Seen plain = seen(smoothed, false), sparing = seen(smoothed, true);
  EXPECT_LT(sparing.inside, 0.75 * plain.inside);
}

/// Three layers; the adapter has its factors for the first.
RawFile three_layers(std::mt19937_64& rng) {
  RawFile file;
  for (const std::string layer : {"blocks.0.q", "blocks.0.k", "blocks.1.q"})
    file.tensors.emplace_back(layer + ".weight", weight(rng, {128, 256}, DType::f32));
  return file;
}

TEST_F(CalibrationLora, ChangesItsLayersAlone) {
  auto rng = test_rng();
  const RawFile file = three_layers(rng);
  RawFile adapter;
  Lora::random(rng, 128, 256, 4).write(adapter, "blocks.0.q");
  ConvertOptions options{.to = "int8_row", .preset = "none"};
  for (const std::string optimizer : {"", "ldlq", "quip", "learned"}) {
    SCOPED_TRACE(optimizer);
    options.optimizer = optimizer;
    options.calibration_loras.clear();
    const RawFile plain = convert(file, options);
    options.calibration_loras = {lora_file(adapter)};
    const RawFile got = convert(file, options);
    for (const auto& [name, tensor] : plain.tensors)
      EXPECT_EQ(tensor == got.at(name), name != "blocks.0.q.weight") << name;
    EXPECT_EQ(nlohmann::json::parse(got.metadata.at("mezzotint")).at("recipe").at("calibration_lora").size(), 1u);
    EXPECT_GT(plan_.peak_memory, 0u);
    // A strength of 0 takes an adapter out.
    if (!optimizer.empty()) continue;
    options.calibration_loras[0].strength = 0;
    EXPECT_EQ(convert(file, options).at("blocks.0.q.weight"), plain.at("blocks.0.q.weight"));
  }
}

TEST_F(CalibrationLora, BytesDependOnNeitherThreadsNorMemoryNorInterruptions) {
  auto rng = test_rng();
  const RawFile file = long_model(rng);
  RawFile adapter;
  for (const std::string layer : {"blocks.2.q", "blocks.9.q"}) Lora::random(rng, 64, 64, 4).write(adapter, layer);
  for (const std::string to : {"nvfp4", "int8_convrot"})
    for (const int effort : {1, 3}) {
      ConvertOptions options{.to = to, .preset = "none", .effort = effort};
      options.calibration_loras = {lora_file(adapter)};
      const std::string expected = undisturbed(file, options);
      expect_same_bytes(options, expected);
      interrupt(options, 0.5, 2);
      ConvertOptions without = options;
      without.calibration_loras.clear();
      EXPECT_EQ(error_of([&] { resume(without, 2); }), "resume-mismatch");
      EXPECT_GT(resume(options, 2).rows_resumed, 0u);
      EXPECT_TRUE(file_bytes(out()) == expected);
      std::filesystem::remove(out());
    }
}

// A layer that takes up one adapter and keeps its format spares the inputs of another.
TEST_F(CalibrationLora, GoesWithMergedAdapters) {
  auto rng = test_rng();
  constexpr int64_t rows = 256, cols = 256;
  start(normal_floats(rng, rows * cols), Lora::random(rng, rows, cols, 8));
  const Lora other = Lora::random(rng, rows, cols, 8, 0.02);
  RawFile adapter;
  other.write(adapter, "blocks.0.q");
  const MergeLora merged = lora_file(adapter, 1, "merged");
  const RawFile packed = convert(base_, {.to = "int8_row", .preset = "none"});
  const Matrix before = plain_values(convert(packed, {.to = "fp32", .preset = "none"}).at(kWeightName));
  const Matrix delta = other.delta();
  const auto inside = [&](bool sparing) {
    ConvertOptions options = merging({merged});
    if (sparing) options.calibration_loras = {lora_};
    const RawFile after = convert(packed, options);
    EXPECT_TRUE(row(plan_, "blocks.0.q").keeps_format);
    Matrix e = plain_values(convert(after, {.to = "fp32", .preset = "none"}).at(kWeightName));
    for (size_t i = 0; i < e.size(); ++i) e[i] -= before[i] + delta[i];
    return errors_seen(e, basis_, cols).inside;
  };
  EXPECT_LT(inside(true), 0.7 * inside(false));
}

TEST_F(CalibrationLora, Errors) {
  auto rng = test_rng();
  const RawFile file = three_layers(rng);
  RawFile adapter, full;
  Lora::random(rng, 128, 256, 4).write(adapter, "blocks.0.q");
  full.tensors.emplace_back("blocks.0.k.diff", test::f32_tensor({128, 256}, normal_floats(rng, 128 * 256, 0.1)));
  const MergeLora lora = lora_file(adapter), diff = lora_file(full, 1, "full");
  const auto with = [&](ConvertOptions options, std::vector<MergeLora> loras) {
    options.preset = "none";
    options.calibration_loras = std::move(loras);
    return error_of([&] { plan(file, options); });
  };
  EXPECT_EQ(with({.to = "int8_row"}, {lora}), "");
  EXPECT_EQ(with({.to = "int8_row", .effort = 0}, {lora}), "bad-option");
  EXPECT_EQ(with({.to = "int8_row", .optimizer = "search"}, {lora}), "bad-option");
  EXPECT_EQ(with({.to = "int8_row", .rounding = Rounding::Mode::stochastic}, {lora}), "bad-option");
  EXPECT_EQ(with({.to = "bf16"}, {lora}), "bad-option");
  EXPECT_EQ(with({.to = "int8_row"}, {diff}), "bad-option") << "a difference reads no space of its own";
  EXPECT_EQ(with({.to = "int8_row"}, {lora, diff}), "");
  const Plan both = plan(file, [&] {
    ConvertOptions options{.to = "int8_row", .preset = "none"};
    options.calibration_loras = {lora, diff};
    return options;
  }());
  EXPECT_TRUE(std::any_of(both.warnings.begin(), both.warnings.end(),
                          [](const std::string& line) { return line.starts_with("1 layers have adapters"); }));
  // Layers that a config wants plain stay plain.
  ConvertOptions config{.to = "int8_row"};
  config.layer_config = R"({"blocks.0.q": {"format": "int8_row", "simple": true}})";
  EXPECT_EQ(with(config, {lora}), "");
  config.preset = "none";
  config.calibration_loras = {lora};
  const Plan plain = plan(file, config);
  EXPECT_EQ(row(plain, "blocks.0.q").method.label, "plain");
  EXPECT_TRUE(std::any_of(plain.warnings.begin(), plain.warnings.end(), [](const std::string& line) {
    return line.find("`--calibration-lora` changes nothing") != std::string::npos;
  }));
}

}  // namespace
}  // namespace mezzotint::convert
