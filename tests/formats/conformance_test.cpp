#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "formats/variants.h"
#include "support/seed.h"

// What every format promises, over every format compiled in.
namespace mezzotint::formats {
namespace {

using test::as_source;
using test::awkward_inputs;
using test::AwkwardInput;
using test::make_values;
using test::SourceBytes;

class Conformance : public testing::TestWithParam<const Format*> {
 protected:
  const Format& format() const { return *GetParam(); }
  std::mt19937_64 rng = test::test_rng();
};

std::vector<float> error_bounds(const Layout& layout, const Parameters& parameters, const std::vector<float>& values) {
  std::vector<float> bounds(values.size());
  for (const auto& range : row_tiles(layout, 1)) {
    const Tile tile{
        values.data() + range.row0 * layout.cols, DType::f32, range.row0, range.rows, 0, layout.cols, layout.cols};
    layout.format->error_bound(layout, parameters, tile, bounds.data() + range.row0 * layout.cols);
  }
  return bounds;
}

/// Values as observe and encode see them.
std::vector<float> transformed(const Layout& layout, std::vector<float> values) {
  if (layout.transformed) layout.format->transform(layout, values.data(), layout.total_rows(), false);
  return values;
}

/// What the codes decode to, before the inverse transform.
std::vector<float> decode_all(const Layout& layout, const Parameters& parameters) {
  std::vector<float> out(static_cast<size_t>(layout.total_rows() * layout.cols));
  for (const auto& range : row_tiles(layout, layout.rows))
    layout.format->decode(layout, parameters, range.row0, range.rows, 0, layout.cols,
                          parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes,
                          out.data() + range.row0 * layout.cols, layout.cols);
  return out;
}

size_t violations(const std::vector<float>& values, const std::vector<float>& decoded, const std::vector<float>& bounds,
                  double factor = 1) {
  size_t count = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    const double error = std::abs(static_cast<double>(values[i]) - static_cast<double>(decoded[i]));
    count += !(error <= factor * static_cast<double>(bounds[i]));
  }
  return count;
}

/// The scales broken by 25%: the first float32 parameter that what is decoded depends on, else the decoded values.
std::vector<float> decode_broken(const Layout& layout, const Parameters& parameters) {
  const std::vector<float> sound = decode_all(layout, parameters);
  for (size_t t = 1; t < layout.tensors.size(); ++t) {
    if (layout.tensors[t].dtype != DType::f32) continue;
    Parameters broken = parameters;
    auto* scale = reinterpret_cast<float*>(broken.tensors[t].data());
    for (size_t i = 0; i < broken.tensors[t].size() / 4; ++i) scale[i] *= 1.25f;
    if (std::vector<float> decoded = decode_all(layout, broken); decoded != sound) return decoded;
  }
  std::vector<float> decoded = sound;
  for (float& x : decoded) x *= 1.25f;
  return decoded;
}

TEST_P(Conformance, HasARowThatHelpTextsCanUse) {
  EXPECT_FALSE(format().name.empty());
  EXPECT_FALSE(format().summary.empty());
  EXPECT_FALSE(format().support.loaders.empty());
  EXPECT_FALSE(format().support.fast_on.empty());
  EXPECT_EQ(format().support.comfyui, format().support.nearest.empty());
  if (!format().support.nearest.empty()) {
    EXPECT_TRUE(select_format(format().support.nearest).format->support.comfyui);
  }
  EXPECT_EQ(format().choose_plan == nullptr, format().observe == nullptr);
  EXPECT_GE(layouts(format()).size(), 8u) << "too few of the shared shapes can be stored to test this format";
}

TEST_P(Conformance, DescribesWhatItStores) {
  for (const Layout& layout : layouts(format())) {
    SCOPED_TRACE(tell(layout));
    EXPECT_EQ(layout.format, &format());
    EXPECT_EQ(layout.options, complete_options(format(), layout.options));
    EXPECT_EQ(layout.tensors.at(0).suffix, "weight");
    EXPECT_EQ(codes_bytes(layout), tensor_bytes(layout.tensors[0]));
    EXPECT_GE(layout.stored_rows, layout.rows);
    EXPECT_GE(layout.row_granule, 1);
    EXPECT_EQ(static_cast<uint64_t>(layout.total_rows() * layout.cols), element_count(layout.shape));
    const SourceBytes source =
        as_source(make_values(awkward_inputs()[0], rng, layout.total_rows(), layout.cols), DType::f32);
    const Quantized result = quantize(layout, whole_tile(layout, source), {}, {}, 1);
    ASSERT_EQ(result.parameters.tensors.size(), layout.tensors.size());
    for (size_t i = 0; i < layout.tensors.size(); ++i)
      EXPECT_EQ(result.parameters.tensors[i].size(), tensor_bytes(layout.tensors[i])) << layout.tensors[i].suffix;
  }
}

TEST_P(Conformance, RefusesWithAReason) {
  const Options options = complete_options(format(), {});
  const auto refuses = [&](const Shape& shape, LayerKind kind) {
    const Description description = format().describe({shape, kind}, options);
    EXPECT_FALSE(description.layout.has_value()) << to_string(shape);
    EXPECT_FALSE(description.refusal.empty()) << to_string(shape);
  };
  refuses({0, 128}, LayerKind::linear);
  refuses({128, 0}, LayerKind::linear);
  refuses({0, 128, 128}, LayerKind::expert_bank);
  if (format().quantized) {
    refuses({128}, LayerKind::linear);
    refuses({}, LayerKind::linear);
    refuses({4, 128, 128}, LayerKind::linear);
    refuses({128, 128}, LayerKind::expert_bank);
    refuses({128, 128, 3, 3}, LayerKind::convolution);
    refuses({128, 128}, LayerKind::other);
  }
}

TEST_P(Conformance, RoundTripStaysWithinItsBound) {
  for (const Layout& layout : layouts(format()))
    for (const AwkwardInput& input : awkward_inputs()) {
      SCOPED_TRACE(tell(layout) + ", " + input.name);
      const SourceBytes source = as_source(make_values(input, rng, layout.total_rows(), layout.cols), DType::f32);
      bool non_finite = false;
      Parameters parameters = choose_parameters(layout, whole_tile(layout, source), {}, 1, &non_finite);
      if (format().choose_plan) {
        EXPECT_EQ(non_finite, !input.finite);
      }
      std::vector<std::string> problems;
      check_parameters(layout, parameters, problems);
      EXPECT_TRUE(problems.empty()) << problems[0];
      parameters.tensors[0] = encode(layout, parameters, whole_tile(layout, source), {}, 1);
      const std::vector<float> values = transformed(layout, source.values);
      const std::vector<float> decoded = decode_all(layout, parameters);
      const std::vector<float> bounds = error_bounds(layout, parameters, values);
      ASSERT_EQ(violations(values, decoded, bounds), 0u);
      if (input.ordinary) {
        EXPECT_GT(violations(values, decode_broken(layout, parameters), bounds), 0u) << "control MISSED";
      }
    }
}

TEST_P(Conformance, ZerosStayZeros) {
  for (const Layout& layout : layouts(format())) {
    SCOPED_TRACE(tell(layout));
    const SourceBytes source = as_source(std::vector<float>(layout.total_rows() * layout.cols, 0.0f), DType::f32);
    const Quantized result = quantize(layout, whole_tile(layout, source), {}, {}, 1);
    const std::vector<float> values = dequantize(layout, result.parameters, 1);
    EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](float x) { return x == 0; }));
  }
}

TEST_P(Conformance, NarrowSourcesEqualTheirWidenedValues) {
  for (const Layout& layout : layouts(format()))
    for (const AwkwardInput& input : awkward_inputs())
      for (const DType dtype : {DType::bf16, DType::f16}) {
        SCOPED_TRACE(tell(layout) + ", " + input.name + " " + std::string(name(dtype)));
        const SourceBytes narrow = as_source(make_values(input, rng, layout.total_rows(), layout.cols), dtype);
        const SourceBytes wide = as_source(narrow.values, DType::f32);
        EXPECT_EQ(quantize(layout, whole_tile(layout, narrow), {}, {}, 1).parameters.tensors,
                  quantize(layout, whole_tile(layout, wide), {}, {}, 1).parameters.tensors);
      }
}

TEST_P(Conformance, AnySplitGivesTheSameBytes) {
  const Rounding stochastic = Rounding::stochastic(7, "layer.weight");
  for (const Layout& layout : layouts(format()))
    for (const Rounding& rounding : {Rounding::nearest(), stochastic}) {
      SCOPED_TRACE(tell(layout));
      const SourceBytes source =
          as_source(make_values(awkward_inputs()[1], rng, layout.total_rows(), layout.cols), DType::bf16);
      const Quantized whole = quantize(layout, whole_tile(layout, source), {}, rounding, 1);
      const std::vector<float> decoded = decode_all(layout, whole.parameters);
      const std::vector<float> wide = transformed(layout, source.values);
      for (const int64_t rows : {int64_t{1}, int64_t{13}, 3 * layout.row_granule}) {
        std::vector<std::byte> codes(codes_bytes(layout));
        std::vector<float> values(decoded.size());
        for (const auto& range : row_tiles(layout, rows)) {
          std::byte* row = codes.data() + layout.stored_row(range.row0) * layout.row_bytes;
          for (int64_t col = 0; col < layout.cols;) {
            const int64_t cols = std::min<int64_t>(layout.cols - col, 1 + static_cast<int64_t>(rng() % 61));
            const Tile tile{wide.data() + range.row0 * layout.cols + col,
                            DType::f32,
                            range.row0,
                            range.rows,
                            col,
                            cols,
                            layout.cols};
            format().encode(layout, whole.parameters, tile, rounding, row);
            format().decode(layout, whole.parameters, range.row0, range.rows, col, cols,
                            whole.parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes,
                            values.data() + range.row0 * layout.cols + col, layout.cols);
            col += cols;
          }
        }
        ASSERT_EQ(codes, whole.parameters.tensors[0]) << rows << " rows per tile";
        ASSERT_EQ(std::memcmp(values.data(), decoded.data(), decoded.size() * 4), 0) << rows << " rows per tile";
      }
    }
}

TEST_P(Conformance, ParametersDoNotDependOnTheOrderOfTiles) {
  if (format().choose_plan == nullptr) return;
  for (const Layout& layout : layouts(format())) {
    SCOPED_TRACE(tell(layout));
    const SourceBytes source =
        as_source(make_values(awkward_inputs()[1], rng, layout.total_rows(), layout.cols), DType::f32);
    const Parameters expected = choose_parameters(layout, whole_tile(layout, source), {}, 1);
    const std::vector<float> values = transformed(layout, source.values);
    const ChoosePlan plan = format().choose_plan(layout, {});
    std::vector<float> stats(plan.stats, 0.0f);
    Parameters parameters = new_parameters(layout);
    auto tiles = row_tiles(layout, layout.row_granule);
    for (int pass = 0; pass < plan.passes; ++pass) {
      std::shuffle(tiles.begin(), tiles.end(), rng);
      for (const auto& range : tiles) {
        const Tile tile{
            values.data() + range.row0 * layout.cols, DType::f32, range.row0, range.rows, 0, layout.cols, layout.cols};
        format().observe(layout, {}, pass, tile, stats.data(), parameters);
      }
      if (format().finish && !(plan.fused && pass + 1 == plan.passes))
        format().finish(layout, {}, pass, stats.data(), parameters);
    }
    EXPECT_EQ(parameters.tensors, expected.tensors);
  }
}

TEST_P(Conformance, ThreadsDoNotChangeBytes) {
  size_t described = 0;
  for (const Options& options : option_variants(format())) {
    // Several of the driver's tiles, and columns for the blocks that the variants ask for: 7 * 128, or a power of two.
    auto description = format().describe({{7 * 128, 7 * 128}, LayerKind::linear}, options);
    if (!description.layout) description = format().describe({{7 * 32, 4096}, LayerKind::linear}, options);
    if (!description.layout) continue;  // a value that suits no shape, 7 where a power of two is wanted
    ++described;
    const Layout& layout = *description.layout;
    SCOPED_TRACE(tell(layout));
    ASSERT_GT(row_tiles(layout, rows_per_tile(layout, DType::f32, 256 << 10)).size(), 3u);
    const SourceBytes source = as_source(make_values(awkward_inputs()[1], rng, layout.rows, layout.cols), DType::f32);
    for (const Rounding& rounding : {Rounding::nearest(), Rounding::stochastic(1, "w")}) {
      const Quantized one = quantize(layout, whole_tile(layout, source), {}, rounding, 1);
      for (const int threads : {2, 5})
        EXPECT_EQ(quantize(layout, whole_tile(layout, source), {}, rounding, threads).parameters.tensors,
                  one.parameters.tensors)
            << threads;
      const std::vector<float> values = dequantize(layout, one.parameters, 1);
      EXPECT_EQ(dequantize(layout, one.parameters, 5), values);
    }
  }
  EXPECT_GT(described, 0u);
}

TEST_P(Conformance, StochasticRoundingStaysWithinAStep) {
  bool differs_from_nearest = false, keys_differ = false;
  for (const Layout& layout : layouts(format())) {
    SCOPED_TRACE(tell(layout));
    const SourceBytes source =
        as_source(make_values(awkward_inputs()[0], rng, layout.total_rows(), layout.cols), DType::f32);
    Parameters parameters = choose_parameters(layout, whole_tile(layout, source), {}, 1);
    const std::vector<float> values = transformed(layout, source.values);
    const std::vector<float> bounds = error_bounds(layout, parameters, values);
    const auto nearest = encode(layout, parameters, whole_tile(layout, source), {}, 1);
    const auto other = encode(layout, parameters, whole_tile(layout, source), Rounding::stochastic(4, "w"), 1);
    parameters.tensors[0] = encode(layout, parameters, whole_tile(layout, source), Rounding::stochastic(3, "w"), 1);
    differs_from_nearest |= parameters.tensors[0] != nearest;
    keys_differ |= parameters.tensors[0] != other;
    EXPECT_EQ(violations(values, decode_all(layout, parameters), bounds, 2), 0u);
  }
  const bool exact = layouts(format())[0].tensors[0].dtype == DType::f32;
  EXPECT_EQ(differs_from_nearest, !exact);
  EXPECT_EQ(keys_differ, !exact);
}

TEST_P(Conformance, PowersOfTwoAreExact) {
  if (format().scale_by_power_of_two == nullptr) return;
  for (const Layout& layout : layouts(format()))
    for (const int exponent : {3, -5, 0}) {
      SCOPED_TRACE(tell(layout));
      const SourceBytes source =
          as_source(make_values(awkward_inputs()[0], rng, layout.total_rows(), layout.cols), DType::f32);
      Quantized result = quantize(layout, whole_tile(layout, source), {}, {}, 1);
      const std::vector<float> before = decode_all(layout, result.parameters);
      ASSERT_TRUE(format().scale_by_power_of_two(layout, result.parameters, exponent));
      const std::vector<float> after = decode_all(layout, result.parameters);
      for (size_t i = 0; i < before.size(); ++i) ASSERT_EQ(after[i], std::ldexp(before[i], exponent)) << i;
      const Parameters kept = result.parameters;
      ASSERT_FALSE(format().scale_by_power_of_two(layout, result.parameters, 400));
      EXPECT_EQ(result.parameters.tensors, kept.tensors) << "a refused change must change nothing";
    }
}

TEST_P(Conformance, RecognisesItsOwnLayers) {
  for (const Layout& layout : layouts(format())) {
    SCOPED_TRACE(tell(layout));
    const nlohmann::json marker = marker_of(layout);
    const Recognition recognition = format().recognise(stored_layer(layout, marker));
    ASSERT_EQ(recognition.fit, Fit::labelled) << (recognition.problems.empty() ? "" : recognition.problems[0]);
    EXPECT_TRUE(recognition.problems.empty()) << recognition.problems[0];
    EXPECT_EQ(recognition.layout.format, &format());
    EXPECT_EQ(recognition.layout.options, layout.options);
    EXPECT_EQ(recognition.layout.shape, layout.shape);
    ASSERT_EQ(recognition.layout.tensors.size(), layout.tensors.size());
    for (size_t i = 0; i < layout.tensors.size(); ++i) {
      EXPECT_EQ(recognition.layout.tensors[i].dtype, layout.tensors[i].dtype);
      EXPECT_EQ(recognition.layout.tensors[i].shape, layout.tensors[i].shape);
    }
  }
}

TEST_P(Conformance, ReportsMissingAndMisshapenParameters) {
  if (!format().quantized) return;
  for (const Layout& layout : layouts(format())) {
    SCOPED_TRACE(tell(layout));
    const nlohmann::json marker = marker_of(layout);
    for (size_t i = 1; i < layout.tensors.size(); ++i) {
      StoredLayer layer = stored_layer(layout, marker);
      layer.tensors[i].shape = {layout.total_rows() + 1, layout.cols + 1, 5};
      EXPECT_LE(format().recognise(layer).fit, Fit::broken);
      layer.tensors.erase(layer.tensors.begin() + static_cast<int64_t>(i));
      const Recognition recognition = format().recognise(layer);
      EXPECT_EQ(recognition.fit, Fit::broken);
      EXPECT_FALSE(recognition.problems.empty());
    }
    Parameters parameters = new_parameters(layout);
    for (size_t i = 1; i < layout.tensors.size(); ++i)
      std::fill(parameters.tensors[i].begin(), parameters.tensors[i].end(), std::byte{0xFF});
    std::vector<std::string> problems;
    check_parameters(layout, parameters, problems);
    EXPECT_FALSE(problems.empty()) << "parameters of all ones bits are NaN in every float type";
  }
}

std::vector<const Format*> writable_formats() {
  std::vector<const Format*> found;
  for (const Format* format : all_formats())
    if (format->writable) found.push_back(format);
  return found;
}

INSTANTIATE_TEST_SUITE_P(Formats, Conformance, testing::ValuesIn(writable_formats()),
                         [](const auto& row) { return std::string(row.param->name); });

}  // namespace
}  // namespace mezzotint::formats
