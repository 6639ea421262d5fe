#include <cmath>

#include "convert/conversion.h"
#include "mezzotint/convert/budget/budget.h"
#include "mezzotint/convert/recipe.h"

namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::RawTensor;
using test::test_rng;

using Json = nlohmann::ordered_json;

const std::vector<std::string> kBudgetFormats = {"nvfp4", "int8_row", "float8_e4m3fn", "bf16"};

/// Four blocks whose layers differ in size and in how well they can be quantized, a norm and biases.
RawFile blocks(std::mt19937_64& rng, DType dtype = DType::bf16) {
  RawFile file;
  for (int block = 0; block < 4; ++block) {
    const std::string stem = "blocks." + std::to_string(block);
    int kind = block;
    for (const auto& [layer, rows, cols] :
         {std::tuple{".q", 64, 64}, {".o", 64, 64}, {".up", 192, 64}, {".down", 64, 192}}) {
      const auto& inputs = test::awkward_inputs();
      std::vector<float> values = test::make_values(inputs[0], rng, rows, cols);
      // Outliers, more of them from layer to layer.
      for (int i = 0; i < 40 * (kind % 3); ++i) values[rng() % values.size()] *= 12;
      ++kind;
      file.tensors.emplace_back(
          stem + layer + ".weight",
          RawTensor{std::string(name(dtype)), {rows, cols}, text_of(test::as_source(values, dtype).bytes)});
      file.tensors.emplace_back(stem + layer + ".bias", weight(rng, {rows}, dtype));
    }
    file.tensors.emplace_back(stem + ".norm.weight", weight(rng, {64}, dtype));
  }
  return file;
}

class Budgets : public Conversion {
 protected:
  Budget budget(const BudgetRequest& request, const ConvertOptions& options = {}, const BudgetRun& run = {}) const {
    return choose_budget(checkpoint::Model::open(in()), out(), options, request, run);
  }
  uint64_t size(const ConvertOptions& options) const { return plan(options).layout.total_bytes; }
  /// The result's options with one layer in another format.
  static ConvertOptions changed(const Budget& result, const std::string& layer, const std::string& format) {
    ConvertOptions options = result.options;
    Json config = options.layer_config.empty() ? Json::object() : Json::parse(options.layer_config);
    config[layer] = {{"format", format}};
    options.layer_config = config.dump();
    return options;
  }
  /// Relative errors of every layer in a format, by a budget that leaves no choice.
  std::map<std::string, double> errors(const std::string& format) const {
    std::map<std::string, double> found;
    // Everything at the format, which is the only quantized one: a target that only it reaches.
    for (const auto& layer : budget({.formats = {format}, .max_error = 10.0}).layers)
      found[layer.layer] = layer.relative_error;
    return found;
  }
  static std::string format_of(const Budget& result, const std::string& layer) {
    for (const auto& choice : result.layers)
      if (choice.layer == layer) return choice.format;
    return "";
  }
};

TEST_F(Budgets, FillTheTargetAndNeverPassIt) {
  auto rng = test_rng();
  const RawFile file = blocks(rng);
  test::write_raw(in(), file);
  std::map<std::string, std::map<std::string, double>> errors_of;
  for (const std::string& format : kBudgetFormats)
    if (format != "bf16") errors_of[format] = errors(format);
  for (const auto& [layer, error] : errors_of.at("nvfp4")) errors_of["bf16"][layer] = 0;

  const uint64_t least = size({.to = "nvfp4"}), most = size({.to = "bf16"});
  ASSERT_LT(least, most);
  double last = 1e9;
  std::set<std::string> mixes;
  for (uint64_t target = least; target < most + 4000; target += 3001) {
    SCOPED_TRACE(target);
    const Budget result = budget({.target_bytes = target});
    EXPECT_LE(result.bytes, target);
    EXPECT_EQ(result.bytes, size(result.options));
    EXPECT_LE(result.error, last);
    last = result.error;
    ASSERT_EQ(result.layers.size(), 16u);
    std::string mix;
    double cost = 0, weights = 0;
    for (const auto& layer : result.layers) {
      mix += layer.format + " ";
      const std::string asked = layer.format == "int8_tensorwise:scaling=row" ? "int8_row" : layer.format;
      EXPECT_DOUBLE_EQ(layer.relative_error, errors_of.at(asked).at(layer.layer));
      cost += layer.weight * layer.relative_error * layer.relative_error;
      weights += layer.weight;
      for (const std::string& format : kBudgetFormats)
        if (errors_of.at(format).at(layer.layer) < layer.relative_error) {
          EXPECT_GT(size(changed(result, layer.layer, format)), target) << layer.layer << " fits as " << format;
        }
    }
    mixes.insert(mix);
    EXPECT_NEAR(result.error, std::sqrt(cost / weights), 1e-12);
  }
  EXPECT_EQ(last, 0) << "bf16 throughout";
  EXPECT_GT(mixes.size(), 10u);
}

TEST_F(Budgets, TheFileHasTheSizeAndTheRecipeReplaysIt) {
  auto rng = test_rng();
  const RawFile file = blocks(rng);
  test::write_raw(in(), file);
  const uint64_t target = (size({.to = "nvfp4"}) + size({.to = "bf16"})) / 2;
  const Budget result = budget({.target_bytes = target}, {.effort = 2});
  EXPECT_EQ(result.options.effort, 2);
  convert(result.options);
  const std::string bytes = file_bytes(out());
  EXPECT_EQ(bytes.size(), result.bytes);
  expect_sound(out());
  const ConvertOptions again = recipe_from_json(recipe_json(result.options));
  std::filesystem::remove(out());
  const RawFile after = convert(again);
  EXPECT_TRUE(file_bytes(out()) == bytes);
  // Each layer is what its format makes of it.
  std::set<std::string> seen;
  for (const auto& layer : result.layers) {
    seen.insert(layer.format);
    if (layer.format == "bf16") {
      EXPECT_EQ(after.at(layer.layer + ".weight"), file.at(layer.layer + ".weight"));
    } else {
      EXPECT_EQ(header_layers(after).at(layer.layer).at("format"), layer.format.substr(0, layer.format.find(':')));
    }
  }
  EXPECT_GE(seen.size(), 2u);
}

// A target that is the size of a uniform conversion does not miss it by the entries of a layer config.
TEST_F(Budgets, AreNoWorseThanAUniformConversionOfTheSize) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  for (const std::string format : {"nvfp4", "float8_e4m3fn", "int8_row"}) {
    double cost = 0, weights = 0;
    for (const auto& layer : budget({.formats = {format}, .max_error = 10.0}).layers) {
      cost += layer.weight * layer.relative_error * layer.relative_error;
      weights += layer.weight;
    }
    const Budget result = budget({.target_bytes = size({.to = format})});
    EXPECT_LE(result.error, std::sqrt(cost / weights) * (1 + 1e-12)) << format;
  }
}

TEST_F(Budgets, DoNotDependOnThreads) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  const BudgetRequest request{.target_bpw = 9.0};
  uint64_t last = 0, total = 0;
  const Budget one = budget(request);
  const Budget three =
      budget(request, {}, {.threads = 3, .progress = [&](uint64_t done, uint64_t all, const std::string&) {
                             EXPECT_GT(done, last);
                             last = done;
                             total = all;
                           }});
  EXPECT_EQ(to_json(one), to_json(three));
  EXPECT_EQ(recipe_json(one.options), recipe_json(three.options));
  EXPECT_GT(total, 0u);
  EXPECT_EQ(last, total);
}

TEST_F(Budgets, BitsPerWeightAreOfTheWeightsAlone) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  double last = 1e9;
  for (const double bpw : {5.1, 6.2, 8.5, 12.0, 16.0}) {
    const Budget result = budget({.target_bpw = bpw});
    EXPECT_EQ(result.bits_per_weight, plan(result.options).bits_per_weight);
    EXPECT_LE(result.bits_per_weight, bpw);
    EXPECT_LT(result.error, last);
    last = result.error;
    for (const auto& layer : result.layers)
      if (layer.format == "nvfp4") {
        EXPECT_GT(plan(changed(result, layer.layer, "bf16")).bits_per_weight, bpw);
      }
  }
}

TEST_F(Budgets, AnErrorBoundIsTheDual) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  uint64_t last = UINT64_MAX;
  for (const double bound : {0.0, 0.004, 0.02, 0.05, 0.5}) {
    const Budget result = budget({.max_error = bound});
    EXPECT_LE(result.error, bound);
    EXPECT_LT(result.bytes, last);
    last = result.bytes;
    if (bound > 0 && bound < 0.5) {
      const Budget smaller = budget({.target_bytes = result.bytes - 200});
      EXPECT_GT(smaller.error, bound);
    }
  }
  EXPECT_EQ(error_of([&] { budget({.formats = {"nvfp4"}, .max_error = 0.01}); }), "budget-too-strict");
}

TEST_F(Budgets, ShowAFrontier) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  const uint64_t least = size({.to = "nvfp4"}), most = size({.to = "bf16"});
  for (const uint64_t target : {least, (least + most) / 2, most + 100000}) {
    const Budget result = budget({.target_bytes = target});
    ASSERT_EQ(result.frontier.size(), 5u);
    EXPECT_EQ(std::count_if(result.frontier.begin(), result.frontier.end(), [](const auto& p) { return p.chosen; }), 1);
    for (size_t i = 0; i < 5; ++i) {
      const FrontierPoint& point = result.frontier[i];
      size_t layers = 0;
      for (const auto& [format, count] : point.mix) layers += count;
      EXPECT_EQ(layers, 16u);
      if (point.chosen) {
        EXPECT_EQ(point.bytes, result.bytes);
        EXPECT_EQ(point.error, result.error);
      }
      if (i == 0) continue;
      EXPECT_GT(point.bytes, result.frontier[i - 1].bytes);
      EXPECT_GT(point.bits_per_weight, result.frontier[i - 1].bits_per_weight);
      EXPECT_LT(point.cost, result.frontier[i - 1].cost);
      EXPECT_LT(point.error, result.frontier[i - 1].error);
    }
  }
  const auto json = Json::parse(to_json(budget({.target_bytes = (least + most) / 2})));
  EXPECT_EQ(json.at("frontier").size(), 5u);
  EXPECT_EQ(json.at("layers").size(), 16u);
}

TEST_F(Budgets, SayTheLeastSize) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  const uint64_t least = size({.to = "nvfp4"});
  EXPECT_EQ(budget({.target_bytes = least}).bytes, least);
  try {
    budget({.target_bytes = least - 1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "budget-too-small");
    EXPECT_NE(error.info().expected.find("at least " + std::to_string(least) + " bytes"), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(error_of([&] { budget({.target_bpw = 4.0}); }), "budget-too-small");
}

TEST_F(Budgets, TheUsersLayerConfigWins) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  ConvertOptions options;
  options.layer_config = R"({"blocks\\.1\\.": {"format": "float8_e4m3fn"},
                             "blocks.2.q.weight": {"skip": true},
                             "blocks.3.q": {"full_precision_matrix_mult": true}, "_comment": "ours"})";
  const Budget result = budget({.target_bpw = 8.0}, options);
  EXPECT_EQ(result.layers.size(), 16u - 4 - 1);
  const Plan plan = this->plan(result.options);
  EXPECT_LE(plan.bits_per_weight, 8.0);
  for (const std::string layer : {"q", "o", "up", "down"})
    EXPECT_EQ(row(plan, "blocks.1." + layer).to, "float8_e4m3fn");
  EXPECT_EQ(row(plan, "blocks.2.q.weight").action, Action::copy);
  for (const double bpw : {6.2, 8.0, 10.0}) {  // whichever format it gets
    const Budget other = budget({.formats = {"nvfp4", "int8_row"}, .target_bpw = bpw}, options);
    EXPECT_NE(row(this->plan(other.options), "blocks.3.q").marker.find("full_precision_matrix_mult"),
              std::string::npos);
  }
  options.layer_config = R"({"_default": {"format": "int8_row"}})";
  EXPECT_EQ(error_of([&] { budget({.target_bpw = 8.0}, options); }), "nothing-to-choose");
}

TEST_F(Budgets, RulesStillKeepLayers) {
  auto rng = test_rng();
  RawFile file = blocks(rng);
  file.tensors.emplace_back("head.head.weight", weight(rng, {64, 64}));
  test::write_raw(in(), file);
  ConvertOptions options{.exclude = {"blocks\\.0"}};
  const Budget result = budget({.target_bpw = 9.0}, options);
  EXPECT_EQ(result.layers.size(), 12u);
  const Plan plan = this->plan(result.options);
  EXPECT_EQ(row(plan, "head.head.weight").action, Action::copy);
  EXPECT_EQ(row(plan, "blocks.0.q.weight").action, Action::copy);
  EXPECT_EQ(error_of([&] { budget({.target_bpw = 9.0}, {.exclude = {"blocks"}}); }), "nothing-to-choose");
}

// Formats differ in the shapes that they take: a layer only gets what it can be.
TEST_F(Budgets, ShapesDecideWhatALayerCanBe) {
  auto rng = test_rng();
  RawFile file;
  file.tensors.emplace_back("blocks.0.even.weight", weight(rng, {128, 256}));
  file.tensors.emplace_back("blocks.0.odd.weight", weight(rng, {72, 100}));
  test::write_raw(in(), file);
  ASSERT_FALSE(layout_of("int8_blockwise", {72, 100}));
  const Budget result = budget({.formats = {"int8_blockwise", "float8_e4m3fn"}, .max_error = 1});
  ASSERT_EQ(result.layers.size(), 2u);
  EXPECT_EQ(format_of(result, "blocks.0.odd"), "float8_e4m3fn");
  EXPECT_EQ(row(plan(result.options), "blocks.0.odd").to, "float8_e4m3fn");
}

TEST_F(Budgets, WideSourcesMayBecomeBf16) {
  auto rng = test_rng();
  const RawFile file = blocks(rng, DType::f32);
  test::write_raw(in(), file);
  const Budget result = budget({.target_bpw = 16.5});
  for (const auto& layer : result.layers) {
    EXPECT_EQ(layer.format, "bf16");
    EXPECT_GT(layer.relative_error, 1e-4);  // half a unit of 8 bits, uniformly spread
    EXPECT_LT(layer.relative_error, 4e-3);
  }
  const Plan plan = this->plan(result.options);
  EXPECT_EQ(row(plan, "blocks.0.q.weight").to, "bf16");
  EXPECT_LE(plan.bits_per_weight, 16.5);
}

TEST_F(Budgets, CodesThatAreAlreadyRightCostNothing) {
  auto rng = test_rng();
  const RawFile middle = convert(blocks(rng), {.to = "float8_e4m3fn"});
  test::write_raw(in(), middle);
  const Budget result = budget({.target_bpw = 9.0});
  for (const auto& layer : result.layers) {
    EXPECT_EQ(layer.format, "float8_e4m3fn");
    EXPECT_EQ(layer.relative_error, 0);
  }
  EXPECT_EQ(row(plan(result.options), "blocks.0.q").action, Action::keep_codes);
  EXPECT_GT(budget({.target_bpw = 6.0}).error, 0.01);
}

TEST_F(Budgets, PromoteSingleLayers) {
  auto rng = test_rng();
  RawFile file;
  std::normal_distribution<float> normal;
  for (int block = 0; block < 3; ++block) {
    std::vector<float> values(640 * 64);
    for (float& value : values) value = normal(rng);
    if (block == 1) values[333 * 64 + 7] = 1000;  // one value that ruins a scale over the whole weight
    file.tensors.emplace_back("blocks." + std::to_string(block) + ".q.weight",
                              RawTensor{"BF16", {640, 64}, text_of(test::as_source(values, DType::bf16).bytes)});
  }
  test::write_raw(in(), file);
  const ConvertOptions options{.to = "int8_tensor"};
  const Budget result = budget({.promote_above = 0.05}, options);
  EXPECT_TRUE(result.frontier.empty());
  ASSERT_EQ(result.layers.size(), 3u);
  const Plan uniform = plan(options), plan = this->plan(result.options);
  for (const auto& layer : result.layers) {
    const bool ruined = layer.layer == "blocks.1.q";
    EXPECT_EQ(layer.raised_from, ruined ? "int8_tensorwise" : "");
    EXPECT_EQ(layer.raised_error > 0.05, ruined);
    EXPECT_LT(layer.relative_error, 0.05);
    EXPECT_EQ(row(plan, layer.layer).to == row(uniform, layer.layer).to, !ruined);
  }
  EXPECT_EQ(Json::parse(result.options.layer_config).size(), 1u);
  // A scale per row is enough, and the smallest that is.
  EXPECT_EQ(row(plan, "blocks.1.q").to, "float8_e4m3fn");
  EXPECT_EQ(result.bytes, plan.layout.total_bytes);
  // bf16 in the end; where nothing is good enough, the best there is.
  EXPECT_EQ(format_of(budget({.promote_above = 1e-6}, options), "blocks.0.q"), "bf16");
  EXPECT_EQ(format_of(budget({.formats = {"nvfp4"}, .promote_above = 1e-6}, options), "blocks.0.q"), "int8_tensorwise");
  EXPECT_EQ(budget({.promote_above = 10.0}, options).bytes, uniform.layout.total_bytes);
  EXPECT_EQ(error_of([&] { budget({.promote_above = 0.1}, {.to = "bf16"}); }), "bad-option");
}

TEST_F(Budgets, ABudgetKeepsLayersBelowTheBound) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  const BudgetRequest free{.target_bpw = 6.5};
  double worst = 0;
  for (const auto& layer : budget(free).layers) worst = std::max(worst, layer.relative_error);
  ASSERT_GT(worst, 0.05);
  for (const auto& layer : budget({.target_bpw = 12.0, .promote_above = 0.05}).layers)
    EXPECT_LE(layer.relative_error, 0.05);
  EXPECT_EQ(error_of([&] { budget({.target_bpw = 6.5, .promote_above = 0.05}); }), "budget-too-small");
}

TEST_F(Budgets, StatisticsOfTheInputsDecide) {
  auto rng = test_rng();
  RawFile file;
  const RawTensor same = weight(rng, {64, 64});
  for (const std::string layer : {"a", "b", "c", "d"}) file.tensors.emplace_back("blocks.0." + layer + ".weight", same);
  test::write_raw(in(), file);
  const std::vector<float> loud(64, 100.0f), quiet(64, 1.0f);
  const auto moments = [&](std::string_view layer) -> std::span<const float> {
    return layer == "blocks.0.c" ? loud : quiet;
  };
  const BudgetRequest request{.formats = {"nvfp4", "int8_row"}, .target_bpw = 6.4};
  EXPECT_NE(format_of(budget(request), "blocks.0.a"), "nvfp4") << "without statistics the first of equals";
  const Budget result = budget(request, {}, {.column_moments = moments});
  for (const auto& layer : result.layers) EXPECT_EQ(layer.format == "nvfp4", layer.layer != "blocks.0.c");
  const std::vector<float> wrong(63, 1.0f);
  EXPECT_EQ(error_of([&] {
              budget(request, {}, {.column_moments = [&](std::string_view) { return std::span<const float>(wrong); }});
            }),
            "bad-calibration");
}

TEST_F(Budgets, WrongRequests) {
  auto rng = test_rng();
  test::write_raw(in(), blocks(rng));
  EXPECT_EQ(error_of([&] { budget({}); }), "bad-option");
  EXPECT_EQ(error_of([&] { budget({.target_bytes = 1, .target_bpw = 2.0}); }), "bad-option");
  EXPECT_EQ(error_of([&] { budget({.target_bpw = std::nan("")}); }), "bad-option");
  EXPECT_EQ(error_of([&] { budget({.formats = {"bf16"}, .target_bpw = 8.0}); }), "bad-option");
  EXPECT_EQ(error_of([&] { budget({.formats = {"nvfp5"}, .target_bpw = 8.0}); }), "unknown-format");
}

}  // namespace
}  // namespace mezzotint::convert
