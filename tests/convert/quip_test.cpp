#include <gtest/gtest.h>

#include "convert/conversion.h"
#include "convert/feedback_case.h"
#include "mezzotint/convert/methods.h"
#include "mezzotint/convert/optimizers/objective.h"

// A second attempt by way of a rotated basis, row by row against LDLQ alone.
namespace mezzotint::convert {
namespace {

ObjectiveOptions by_inputs(int sweeps, std::optional<uint64_t> signs) {
  return {.moments = Moments::inputs, .damping = 0.01, .sweeps = sweeps, .signs = signs};
}

class QuipOfEveryFormat : public testing::TestWithParam<std::string> {};

TEST_P(QuipOfEveryFormat, KeepsTheBetterOfEveryRow) {
  constexpr int64_t kRows = 128, kCols = 384;
  const formats::Selection selection = formats::select_format(GetParam());
  if (!selection.format->describe({{kRows, kCols}, formats::LayerKind::linear}, selection.options).layout) return;
  const Case c(GetParam(), kRows, kCols);
  const std::vector<float> gram = correlated_gram(kCols);
  for (const int sweeps : {0, 2}) {
    SCOPED_TRACE(testing::Message() << sweeps << " sweeps");
    const RoundedLayer ldlq =
        round_layer(c.layout, c.parameters, c.w.data(), gram.data(), by_inputs(sweeps, std::nullopt), 1);
    const RoundedLayer quip = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), by_inputs(sweeps, 7), 1);
    EXPECT_EQ(share_different(c.stored(quip.values), quip.values), 0.0) << "values of codes";
    const std::vector<double> of_ldlq = row_energies(c, ldlq.values, gram, 0.01);
    const std::vector<double> of_quip = row_energies(c, quip.values, gram, 0.01);
    int64_t changed = 0;
    double sum = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      const auto at = static_cast<size_t>(r);
      sum += of_quip[at];
      EXPECT_LE(of_quip[at], of_ldlq[at] * 1.0001);
      changed += of_quip[at] < of_ldlq[at] * 0.9999;
    }
    EXPECT_NEAR(static_cast<double>(quip.sums.rows_rotated), static_cast<double>(changed), 2);
    EXPECT_NEAR(quip.sums.rounded, sum, 1e-3 * sum);
    EXPECT_NEAR(quip.sums.plain, ldlq.sums.plain, 1e-6 * ldlq.sums.plain);
    EXPECT_GT(changed, 0) << "no row won: the second attempt is no rival";
    EXPECT_LT(changed, kRows) << "every row won: LDLQ was no rival";
    EXPECT_EQ(ldlq.sums.rows_rotated, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, QuipOfEveryFormat, testing::ValuesIn(quantized_formats()),
                         [](const auto& format) { return format.param; });

TEST(Quip, SeedDecidesAndThreadsAndScratchFilesDoNot) {
  const Case c("int8_row", 600, 1280, 5);
  ObjectiveOptions options{.sweeps = 1, .signs = 1};
  const RoundedLayer one = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
  const RoundedLayer two = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 2);
  EXPECT_EQ(one.values, two.values);
  EXPECT_EQ(one.sums.rounded, two.sums.rounded);
  const auto path = testing::TempDir() + "quip_test.scratch";
  const auto scratch = io::platform::File::open_write(path, true);
  const RoundedLayer paged = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 2, &scratch);
  EXPECT_EQ(one.values, paged.values);
  EXPECT_GT(scratch.size(), Objective::tile_bytes(1280, {})) << "two of everything";
  io::platform::remove(path);
  options.signs = 2;
  const RoundedLayer other = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
  EXPECT_NE(one.values, other.values);
}

TEST(Quip, SegmentsAndOddWidthsTakeIt) {
  for (const int64_t cols : {int64_t{1536}, int64_t{333}}) {
    const Case c("int8_row", 67, cols);
    ObjectiveOptions options{.segment = 512};
    const RoundedLayer ldlq = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
    options.signs = 3;
    const RoundedLayer quip = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
    EXPECT_LE(quip.sums.rounded, ldlq.sums.rounded * 1.0001);
    EXPECT_EQ(share_different(c.stored(quip.values), quip.values), 0.0);
  }
}

class QuipConversion : public Conversion {
 protected:
  /// What stands behind the output's header, which holds the recipe.
  std::string payload() const {
    const std::string bytes = file_bytes(out());
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    return bytes.substr(sizeof header + header);
  }
};

TEST_F(QuipConversion, IsPlainBytesThatTheSeedDecides) {
  std::mt19937_64 rng = test::test_rng();
  test::RawFile model = small_model(rng);
  model.tensors.emplace_back("blocks.0.experts.weight", weight(rng, {3, 48, 64}));
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->writable || !format->quantized) continue;
    SCOPED_TRACE(format->name);
    test::write_raw(in(), model);
    ConvertOptions options{.to = std::string(format->name), .effort = 3};
    convert(options, 1);
    const std::string ldlq = payload();
    options.optimizer = "quip";
    convert(options, 1);
    const std::string one = payload();
    if (plan(options).quantized_weights == 0) continue;
    expect_sound(out());
    EXPECT_EQ(one.size(), ldlq.size()) << "nothing more is stored";
    convert(options, 2);
    EXPECT_TRUE(payload() == one) << "threads";
    ConvertOptions little = options;
    little.max_memory = 1 << 20;
    convert(little, 2);
    EXPECT_TRUE(payload() == one) << "memory";
    options.seed = 5;
    convert(options, 1);
    EXPECT_FALSE(payload() == one) << "seed";
  }
}

TEST_F(QuipConversion, PlanKnowsWhatItTakes) {
  std::mt19937_64 rng = test::test_rng();
  test::write_raw(in(), small_model(rng));
  const Plan ldlq = plan({.effort = 2, .optimizer = "ldlq"}), quip = plan({.effort = 2, .optimizer = "quip"});
  EXPECT_GT(quip.peak_memory, ldlq.peak_memory);
  EXPECT_GT(total_work(quip), total_work(ldlq));
  const auto first =
      std::find_if(quip.rows.begin(), quip.rows.end(), [](const PlanRow& r) { return r.method.objective; });
  ASSERT_NE(first, quip.rows.end());
  EXPECT_EQ(first->method.label, "quip");
  // Other layers have other signs.
  const auto last =
      std::find_if(quip.rows.rbegin(), quip.rows.rend(), [](const PlanRow& r) { return r.method.objective; });
  EXPECT_NE(*first->method.objective->signs, *last->method.objective->signs);
}

}  // namespace
}  // namespace mezzotint::convert
