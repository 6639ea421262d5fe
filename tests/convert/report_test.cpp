#include "mezzotint/convert/report/report.h"

#include <cmath>
#include <limits>
#include <thread>

#include "conversion.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/report/blocks.h"
#include "mezzotint/convert/report/command.h"
#include "mezzotint/convert/report/findings.h"
#include "mezzotint/convert/report/make_report.h"
#include "mezzotint/convert/report/text.h"
#include "mezzotint/convert/shipped_recipes.h"
#include "report_sample.h"

namespace mezzotint::convert {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// --- the meter
// --------------------------------------------------------------------------------------------------------

struct Tiles {
  std::vector<std::vector<float>> source, decoded;
};

Tiles random_tiles(size_t count) {
  auto rng = test::test_rng();
  std::normal_distribution<float> normal;
  Tiles tiles;
  for (size_t tile = 0; tile < count; ++tile) {
    auto& source = tiles.source.emplace_back(1000 + 37 * tile);
    auto& decoded = tiles.decoded.emplace_back(source.size());
    for (size_t i = 0; i < source.size(); ++i) {
      source[i] = normal(rng);
      decoded[i] = source[i] + 0.05f * normal(rng);
    }
  }
  return tiles;
}

MeasuredErrors measure(const Tiles& tiles, const std::vector<size_t>& order) {
  LayerMeter meter(tiles.source.size());
  for (const size_t tile : order)
    meter.add(tile, tiles.source[tile].data(), tiles.decoded[tile].data(), tiles.source[tile].size());
  return meter.result();
}

void expect_identical(const MeasuredErrors& a, const MeasuredErrors& b) {
  EXPECT_EQ(std::memcmp(static_cast<const kernel::ErrorSums*>(&a), static_cast<const kernel::ErrorSums*>(&b),
                        sizeof(kernel::ErrorSums)),
            0);
  EXPECT_EQ(a.elements, b.elements);
}

TEST(LayerMeter, EqualsADoubleLoop) {
  const Tiles tiles = random_tiles(5);
  const MeasuredErrors errors = measure(tiles, {0, 1, 2, 3, 4});
  double a2 = 0, b2 = 0, ab = 0, e2 = 0;
  uint64_t elements = 0;
  for (size_t tile = 0; tile < 5; ++tile)
    for (size_t i = 0; i < tiles.source[tile].size(); ++i, ++elements) {
      const double a = tiles.source[tile][i], b = tiles.decoded[tile][i];
      a2 += a * a, b2 += b * b, ab += a * b, e2 += (b - a) * (b - a);
    }
  EXPECT_EQ(errors.elements, elements);
  EXPECT_NEAR(errors.relative_error(), std::sqrt(e2 / a2), 1e-13);
  EXPECT_NEAR(errors.relative_error(), 0.05, 0.005) << "what the tiles were made with";
  EXPECT_NEAR(errors.sqnr_db(), 10 * std::log10(a2 / e2), 1e-11);
  EXPECT_NEAR(errors.cosine(), ab / std::sqrt(a2 * b2), 1e-13);
  EXPECT_NEAR(errors.rms(), std::sqrt(a2 / static_cast<double>(elements)), 1e-13);
}

TEST(LayerMeter, DoesNotDependOnOrderOrThreads) {
  const Tiles tiles = random_tiles(16);
  std::vector<size_t> order(16);
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const MeasuredErrors forward = measure(tiles, order);
  std::reverse(order.begin(), order.end());
  expect_identical(measure(tiles, order), forward);

  LayerMeter meter(tiles.source.size());
  std::vector<std::thread> threads;
  for (size_t worker = 0; worker < 4; ++worker)
    threads.emplace_back([&, worker] {
      for (size_t tile = worker; tile < 16; tile += 4)
        meter.add(tile, tiles.source[tile].data(), tiles.decoded[tile].data(), tiles.source[tile].size());
    });
  for (auto& thread : threads) thread.join();
  expect_identical(meter.result(), forward);

  Tiles other = tiles;  // the control
  other.decoded[7][11] += 1;
  EXPECT_NE(measure(other, order).e2, forward.e2);
}

TEST(LayerMeter, HistogramsAddUp) {
  Tiles tiles = random_tiles(3);
  tiles.source[1][5] = std::numeric_limits<float>::infinity();
  tiles.decoded[0][0] = 0;
  const MeasuredErrors errors = measure(tiles, {0, 1, 2});
  uint64_t values = 0, wrong = 0;
  for (int bin = 0; bin < kernel::kMagnitudeBins; ++bin) values += errors.values[bin], wrong += errors.errors[bin];
  EXPECT_EQ(values, errors.elements - 1);
  EXPECT_EQ(wrong, errors.elements - 1);
  EXPECT_EQ(errors.non_finite, 1u);
  EXPECT_EQ(errors.zeroed, 1u);
  MeasuredErrors twice = errors;
  twice.add(errors);
  EXPECT_EQ(twice.elements, 2 * errors.elements);
  EXPECT_EQ(twice.errors[70], 2 * errors.errors[70]);
  EXPECT_NEAR(twice.relative_error(), errors.relative_error(), 1e-15);
}

TEST(LayerMeter, BinsStartWhereTheyAreSaidTo) {
  EXPECT_EQ(bin_start(0), 0);
  EXPECT_EQ(bin_start(1), std::ldexp(1.0, -40));
  EXPECT_EQ(bin_start(2), 1.5 * std::ldexp(1.0, -40));
  EXPECT_EQ(bin_start(81), 1);
  const std::vector<float> source = {1.0f, 1.49f, 1.5f, 1.99f, 0.99f}, decoded(5);
  LayerMeter meter(1);
  meter.add(0, source.data(), decoded.data(), 5);
  const MeasuredErrors errors = meter.result();
  EXPECT_THAT(std::vector<uint64_t>(errors.values + 80, errors.values + 84), ElementsAre(1, 2, 2, 0));
}

TEST(LayerMeter, NothingAndZeros) {
  const MeasuredErrors none = LayerMeter(0).result();
  EXPECT_EQ(none.relative_error(), 0);
  EXPECT_EQ(none.rms(), 0);
  EXPECT_TRUE(std::isinf(none.sqnr_db()));
  const float zero = 0, one = 1;
  LayerMeter meter(1);
  meter.add(0, &zero, &one, 1);
  EXPECT_TRUE(std::isinf(meter.result().relative_error()));
}

// --- names
// ------------------------------------------------------------------------------------------------------------

TEST(BlockNames, SplitAtTheFirstNumber) {
  const auto parts = [](const char* name) {
    const BlockName split = split_block(name);
    return split.stack + "|" + std::to_string(split.block) + "|" + split.type;
  };
  EXPECT_EQ(parts("blocks.12.self_attn.q"), "blocks|12|self_attn.q");
  EXPECT_EQ(parts("model.diffusion_model.blocks.0.ffn.2"), "model.diffusion_model.blocks|0|ffn.2");
  EXPECT_EQ(parts("text_embedding.2"), "text_embedding|2|");
  EXPECT_EQ(parts("head.head"), "|-1|head.head");
  EXPECT_EQ(parts("0.q"), "|0|q");
  EXPECT_EQ(parts("a.1x.-2.b"), "|-1|a.1x.-2.b");
  EXPECT_EQ(parts("a.99999999999999999999.b"), "|-1|a.99999999999999999999.b") << "no int";
  EXPECT_EQ(parts(""), "|-1|");
}

TEST(BlockNames, MakeGrids) {
  std::vector<ReportLayer> layers;
  for (const char* name : {"in", "blocks.0.q", "blocks.0.k", "blocks.2.q", "blocks.2.k", "blocks.10.q", "blocks.10.v",
                           "blocks.0.q", "tail.0", "tail.1"}) {
    layers.emplace_back();
    layers.back().name = name;
  }
  const BlockMap map = block_map(layers);
  ASSERT_EQ(map.grids.size(), 1u);
  const BlockGrid& grid = map.grids[0];
  EXPECT_EQ(grid.stack, "blocks");
  EXPECT_THAT(grid.blocks, ElementsAre(0, 2, 10));
  EXPECT_THAT(grid.types, ElementsAre("q", "k", "v"));
  EXPECT_THAT(grid.cells[0], ElementsAre(1, 3, 5));
  EXPECT_THAT(grid.cells[1], ElementsAre(2, 4, BlockGrid::kNone));
  EXPECT_THAT(map.outside, ElementsAre(0, 7, 8, 9)) << "a second layer in a cell, and what is too small for a grid";
}

TEST(ReportCommand, SpellsOutARecipe) {
  ConvertOptions options;
  options.exclude = {"a b", R"(^x\.y$)"};
  options.effort = 2;
  options.full_precision_matrix_mult = true;
  options.preset = "none";
  EXPECT_EQ(convert_command(recipe_json(options), "in.safetensors", "it's.safetensors"),
            "mezzotint convert in.safetensors -o 'it'\\''s.safetensors' --to " + options.to +
                R"( --preset none --exclude 'a b' --exclude '^x\.y$' --full-precision-matrix-mult --effort 2)");
  options.layer_config = R"({"a": {"format": "keep"}})";
  EXPECT_EQ(convert_command(recipe_json(options), "i", "o"),
            R"(mezzotint convert i -o o --recipe o --exclude 'a b' --exclude '^x\.y$')");
  options.calibration_fingerprint = "0123456789abcdef";
  EXPECT_EQ(convert_command(recipe_json(options), "i", "o"),
            R"(mezzotint convert i -o o --recipe o --exclude 'a b' --exclude '^x\.y$' --calibration FILE)");
}

TEST(ReportCommand, NamesARecipeThatTheProgramHas) {
  const ShippedRecipe& shipped = shipped_recipes().front();
  ConvertOptions options = recipe_from_json(std::string(shipped.text));
  const std::string command = "mezzotint convert i -o o --recipe ";
  EXPECT_EQ(convert_command(recipe_json(options), "i", "o"), command + shipped.name);
  // With what was given beside it.
  options.effort = 3;
  options.exclude = {"x"};
  EXPECT_EQ(convert_command(recipe_json(options), "i", "o"), command + shipped.name + " --exclude x --effort 3");
  // What options cannot say is taken from the header: an emptied list, a layer config, another revision, another name.
  options.exclude.clear();
  EXPECT_EQ(convert_command(recipe_json(options), "i", "o"), command + R"(o --include '\.weight$')");
  options = recipe_from_json(std::string(shipped.text));
  options.layer_config = "{}";
  EXPECT_THAT(convert_command(recipe_json(options), "i", "o"), StartsWith(command + "o "));
  options = recipe_from_json(std::string(shipped.text));
  options.recipe.revision += 1;
  EXPECT_THAT(convert_command(recipe_json(options), "i", "o"), StartsWith(command + "o "));
  EXPECT_EQ(convert_command(R"({"version":1,"name":"mine","revision":1,"to":"x"})", "i", "o"), command + "o");
  // A header is anybody's.
  for (const char* text : {R"({"name":7})", R"({"name":[],"modified":{}})", R"({"name":"a","modified":[1]})"})
    EXPECT_THAT(convert_command(text, "i", "o"), StartsWith(command + "o")) << text;
  EXPECT_EQ(convert_command(R"({"revision":"x","modified":7})", "i", "o"), "mezzotint convert i -o o");
}

TEST(ReportText, ReadsWell) {
  EXPECT_EQ(percent_text(0.026449), "2.64 %");
  EXPECT_EQ(percent_text(0.30467), "30.5 %");
  EXPECT_EQ(percent_text(0), "0 %");
  EXPECT_EQ(percent_text(std::numeric_limits<double>::infinity()), "infinite");
  EXPECT_EQ(decibel_text(std::numeric_limits<double>::infinity()), "exact");
  EXPECT_EQ(count_text(1234567), "1.23 million");
  EXPECT_EQ(count_text(12034), "12,034");
  EXPECT_EQ(size_text(27'100'000'000), "27.1 GB");
  EXPECT_EQ(duration_text(3722), "1 h 02 min");
}

// --- findings
// ---------------------------------------------------------------------------------------------------------

TEST(Findings, NameTheThreeWorstAndWhatMendsThem) {
  Report report = test::sample_report(40);
  test::set_error(report.layers[5], 0.30);
  test::set_error(report.layers[20], 0.20);
  test::set_error(report.layers[11], 0.13);
  const Findings findings = find(report);
  ASSERT_EQ(findings.worst.size(), 3u);
  EXPECT_EQ(findings.worst[0].layer, 5u);
  EXPECT_EQ(findings.worst[1].layer, 20u);
  EXPECT_EQ(findings.worst[2].layer, 11u);
  EXPECT_EQ(findings.standing_out, 3u);
  EXPECT_THAT(findings.verdict, HasSubstr("3 of 40 layers lose"));
  ASSERT_EQ(findings.mends.size(), 2u);
  // A threshold that takes these three and no other.
  ASSERT_EQ(findings.mends[0].option.substr(0, 16), "--promote-above ");
  const double threshold = std::stod(findings.mends[0].option.substr(16));
  EXPECT_LT(threshold, 0.13);
  EXPECT_GT(threshold, 0.03);
  EXPECT_EQ(findings.mends[1].option, R"(--exclude '^(?:blocks\.1\.b|blocks\.5\.a|blocks\.2\.d)$')");
  EXPECT_THAT(findings.mends[1].effect, HasSubstr("3.0 kB more"));
  // Those patterns and nothing else, as the converter searches them.
  const std::string pattern = findings.mends[1].option.substr(11, findings.mends[1].option.size() - 12);
  size_t matches = 0;
  for (const ReportLayer& layer : report.layers) matches += Regex(pattern).search(layer.name) ? 1 : 0;
  EXPECT_EQ(matches, 3u);
}

TEST(Findings, LayersThatAreAlikeAreMendedTogether) {
  Report report = test::sample_report(40);
  report.effort = 1;
  Findings findings = find(report);
  EXPECT_EQ(findings.standing_out, 0u);
  EXPECT_THAT(findings.verdict, HasSubstr("No layer stands out"));
  ASSERT_GE(findings.mends.size(), 2u);
  EXPECT_EQ(findings.mends[0].option, "--effort 2");
  EXPECT_EQ(findings.mends[1].option, "--calibration FILE");
  report.effort = 3;
  report.calibrated = true;
  findings = find(report);
  ASSERT_EQ(findings.mends.size(), 1u);
  EXPECT_THAT(findings.mends[0].option, HasSubstr("--target-size "));
}

TEST(Findings, MixedFormatsAreHeldAgainstTheirLike) {
  Report report = test::sample_report(40);
  for (size_t i = 20; i < 40; ++i) {
    report.layers[i].to = "small";
    test::set_error(report.layers[i], 0.095 + 0.0001 * static_cast<double>(i));
  }
  test::set_error(report.layers[3], 0.06);  // twice its like, and less than all of the others
  const Findings findings = find(report);
  EXPECT_EQ(findings.standing_out, 1u);
  EXPECT_EQ(findings.worst[0].layer, 39u);
  EXPECT_FALSE(findings.worst[0].stands_out);
  ASSERT_FALSE(findings.mends.empty());
  EXPECT_EQ(findings.mends[0].option, R"(--exclude '^blocks\.0\.d$')") << "no threshold could take it alone";
  ASSERT_EQ(findings.warnings.size(), 1u);
  EXPECT_THAT(findings.warnings[0].text, HasSubstr("blocks.0.d"));
  EXPECT_EQ(findings.warnings[0].mend, findings.mends[0].option);
}

TEST(Findings, EveryWarningSaysWhatMendsIt) {
  Report report = test::sample_report(12);
  report.effort = 0;
  report.layers[1].errors.non_finite = 4;
  report.layers[2].objective_ratio = 1.0;
  report.layers[3].fate = Fate::unmeasured;
  const Findings findings = find(report);
  std::vector<std::string> mends;
  for (const auto& warning : findings.warnings) mends.push_back(warning.mend);
  EXPECT_THAT(mends, ElementsAre(R"(--exclude '^blocks\.0\.b$')",
                                 "mezzotint compare in.safetensors out.safetensors --html report.html",
                                 "--calibration FILE", "--effort 2"));
  EXPECT_TRUE(find(test::sample_report(12)).warnings.empty());
}

TEST(Findings, NothingMeasuredAndNothingChanged) {
  Report report;
  EXPECT_TRUE(find(report).worst.empty());
  EXPECT_TRUE(find(report).mends.empty());
  report = test::sample_report(4);
  for (auto& layer : report.layers) layer.errors = {};
  EXPECT_THAT(find(report).verdict, HasSubstr("exactly what it was"));
  EXPECT_EQ(shell_word(""), "''");
}

// --- from a conversion and from a comparison
// --------------------------------------------------------------------------

class MadeReport : public Conversion {};

TEST_F(MadeReport, OfAConversion) {
  auto rng = test::test_rng();
  ConvertOptions options;
  options.exclude = {"blocks.0.up"};
  convert(small_model(rng), options);
  const auto a = checkpoint::Model::open(in()), b = checkpoint::Model::open(out());
  const Comparison compared = compare(a, b, 2);
  std::vector<MeasuredLayer> measured;
  for (const auto& layer : compared.layers)
    measured.push_back({layer.name, layer.errors, "search", 0.8, "guarded", 0.5});
  ASSERT_EQ(measured.size(), 3u);
  measured.pop_back();  // as if an earlier run had written it
  const Report report = make_report(plan_, outcome_, measured);
  EXPECT_EQ(report.bytes_in, std::filesystem::file_size(in()) > 0 ? plan_.bytes_in : 0);
  EXPECT_EQ(report.bytes_out, std::filesystem::file_size(out()));
  EXPECT_EQ(report.effort, 1);
  EXPECT_FALSE(report.isa.empty());
  EXPECT_THAT(report.command, HasSubstr("--exclude blocks.0.up"));
  const ReportSummary summary = summarize(report);
  EXPECT_EQ(summary.worst.size(), 2u);
  EXPECT_EQ(summary.unmeasured, 1u);
  EXPECT_EQ(summary.kept, 1u);
  const ReportLayer& worst = report.layers[summary.worst[0]];
  EXPECT_EQ(worst.name, compared.layers[0].name);
  EXPECT_EQ(worst.errors.relative_error(), compared.layers[0].relative_error);
  EXPECT_EQ(worst.from, "BF16");
  EXPECT_EQ(worst.to, options.to);
  EXPECT_EQ(worst.optimizer, "search");
  EXPECT_THAT(worst.note, HasSubstr("guarded"));
  // The command, run again, is the same conversion.
  EXPECT_EQ(report.recipe, recipe_json(options));
}

TEST_F(MadeReport, SaysOnceThatValuesAreNotFinite) {
  auto rng = test::test_rng();
  auto file = small_model(rng);
  auto& bytes = file.tensors.front().second.bytes;
  bytes[0] = static_cast<char>(0x80);  // bf16 infinity
  bytes[1] = static_cast<char>(0x7f);
  test::write_raw(in(), file);
  const auto model = checkpoint::Model::open(in());
  plan_ = make_plan(model, out(), {}, 2);
  ExecuteOptions run;
  run.measure = true;
  outcome_ = execute(plan_, model, run);
  ASSERT_THAT(outcome_.warnings, ElementsAre(HasSubstr("not finite")));
  const auto about_it = [](const Report& report) {
    const auto warnings = find(report).warnings;
    return std::count_if(warnings.begin(), warnings.end(),
                         [](const auto& w) { return w.text.find("not finite") != std::string::npos; });
  };
  EXPECT_EQ(about_it(make_report(plan_, outcome_, outcome_.layers)), 1);
  // Of a layer that nobody measured, the conversion's own word stays.
  EXPECT_EQ(about_it(make_report(plan_, outcome_, {})), 1);
}

TEST_F(MadeReport, WarningsOfThePlanCarryWhatMendsThem) {
  auto rng = test::test_rng();
  // names a format: one that ComfyUI does not load
  const Report report = make_report(
      plan(small_model(rng), {.to = "int8_blockwise:block_size=16", .layer_config = R"({"nothing":{"skip":true}})"}),
      {}, {});
  ASSERT_EQ(report.warnings.size(), 2u);
  for (const auto& warning : report.warnings) {
    EXPECT_EQ(std::count(warning.text.begin(), warning.text.end(), '`'), 2) << warning.text;
  }
}

TEST_F(MadeReport, OfAComparison) {
  auto rng = test::test_rng();
  ConvertOptions options;
  options.exclude = {"blocks.0.up"};
  convert(small_model(rng), options);
  const auto a = checkpoint::Model::open(in()), b = checkpoint::Model::open(out());
  const Comparison compared = compare(a, b, 2);
  const Report report = make_report(compared, a, b);
  const ReportSummary summary = summarize(report);
  EXPECT_EQ(summary.worst.size(), 3u);
  EXPECT_EQ(summary.kept, 1u);
  EXPECT_EQ(summary.total.relative_error(), compared.relative_error);
  EXPECT_DOUBLE_EQ(summary.mean_relative_error, compared.mean_relative_error);
  EXPECT_EQ(summary.worst_sqnr_db, compared.worst_sqnr_db);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(report.layers[summary.worst[i]].name, compared.layers[i].name);
  for (const ReportLayer& layer : report.layers)
    if (layer.fate == Fate::kept) {
      EXPECT_EQ(layer.name, "blocks.0.up");
      EXPECT_EQ(layer.bytes_in, layer.bytes_out);
    } else {
      EXPECT_LT(layer.bytes_out, layer.bytes_in);
    }
  EXPECT_EQ(report.recipe, recipe_json(options)) << "from the header";
  EXPECT_TRUE(report.warnings.empty());
}

TEST_F(MadeReport, OfFilesThatDoNotMatch) {
  test::RawFile left, right;
  left.tensors.emplace_back("a.weight", test::f32_tensor({2, 2}, {1, 2, 3, 4}));
  left.tensors.emplace_back("gone", test::f32_tensor({1}, {1}));
  right.tensors.emplace_back("a.weight", test::f32_tensor({2, 2}, {1, 2, 3, 5}));
  right.tensors.emplace_back("new <b>", test::f32_tensor({1}, {1}));
  test::write_raw(in(), left);
  test::write_raw(out(), right);
  const auto a = checkpoint::Model::open(in()), b = checkpoint::Model::open(out());
  const Report report = make_report(compare(a, b, 1), a, b);
  ASSERT_EQ(report.layers.size(), 1u);
  EXPECT_EQ(report.layers[0].name, "a");
  EXPECT_EQ(report.layers[0].fate, Fate::measured);
  EXPECT_FALSE(report.effort.has_value()) << "nobody knows how it was made";
  ASSERT_EQ(report.warnings.size(), 2u);
  EXPECT_THAT(report.warnings[0].text, HasSubstr("gone"));
  EXPECT_THAT(report.warnings[1].text, HasSubstr("new <b>"));
}

}  // namespace
}  // namespace mezzotint::convert
