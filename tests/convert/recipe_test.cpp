#include "mezzotint/convert/recipe.h"

#include <gmock/gmock.h>

#include "convert/conversion.h"
#include "mezzotint/base/version.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

using nlohmann::json;

ConvertOptions everything() {
  return {.to = "int8_blockwise:block_size=64",
          .fallback = "float8_e5m2",
          .preset = "wan",
          .component = "all",
          .include = {"a", R"(b\.\d+)"},
          .exclude = {"\"quoted\""},
          .drop = {"x", "y"},
          .layer_config = R"({"z.*":{"format":"int8_tensorwise"},"a":{"skip":true}})",
          .layer_config_fullmatch = true,
          .full_precision_matrix_mult = true,
          .rounding = Rounding::Mode::stochastic,
          .seed = ~uint64_t{0},
          .effort = 3,
          .calibration_fingerprint = "0123456789abcdef",
          .input_scale = "p99.9",
          .max_memory = 77,
          .max_shard_bytes = 5};
}

TEST(Recipe, HoldsEveryOptionThatDecidesBytes) {
  const std::string text = recipe_json(everything());
  const ConvertOptions read = recipe_from_json(text);
  EXPECT_EQ(recipe_json(read), text);
  EXPECT_EQ(read.seed, ~uint64_t{0});
  EXPECT_EQ(read.layer_config, everything().layer_config);
  EXPECT_EQ(read.include, everything().include);
  EXPECT_EQ(read.rounding, Rounding::Mode::stochastic);
  EXPECT_EQ(read.max_memory, ConvertOptions{}.max_memory);
  EXPECT_EQ(read.max_shard_bytes, 0u);
  // Each of them is told apart from its default: leave one out and the recipe is another.
  EXPECT_EQ(json::parse(text).size(), 16u);
  EXPECT_EQ(recipe_json({}), R"({"version":1,"to":"float8_e4m3fn","preset":"auto"})");
}

TEST(Recipe, DefaultsMayBeWrittenOut) {
  EXPECT_EQ(
      recipe_json(recipe_from_json(R"({"version": 1, "seed": 0, "effort": 1, "rounding": "nearest", "drop": []})")),
      recipe_json({}));
}

TEST(Recipe, RefusesWhatItCouldNotHaveWritten) {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  const std::string bad[] = {"",
                             "{",
                             "[]",
                             "7",
                             "{}",
                             R"({"version": 2})",
                             R"({"version": "1"})",
                             R"({"version": 1, "colour": "red"})",
                             R"({"version": 1, "to": 8})",
                             R"({"version": 1, "to": ["a"]})",
                             R"({"version": 1, "seed": -1})",
                             R"({"version": 1, "seed": true})",
                             R"({"version": 1, "seed": 1.5})",
                             R"({"version": 1, "seed": "1"})",
                             R"({"version": 1, "effort": 2.7})",
                             R"({"version": 1, "effort": 99999999999})",
                             R"({"version": 1, "include": "a"})",
                             R"({"version": 1, "include": [1]})",
                             R"({"version": 1, "rounding": "up"})",
                             R"({"version": 1, "rounding": 1})",
                             R"({"version": 1, "full_precision_matrix_mult": 1})",
                             R"({"version": 1, "full_precision_matrix_mult": null})",
                             R"({"version": 1, "layer_config": )" + deep + "}"};
  for (const std::string& text : bad)
    EXPECT_EQ(error_of([&] { recipe_from_json(text); }), "bad-recipe") << text.substr(0, 80);
}

using Replay = Conversion;

TEST_F(Replay, TheHeadersRecipeGivesTheSameBytes) {
  auto rng = test::test_rng();
  const auto file = small_model(rng);
  for (const ConvertOptions& options :
       {ConvertOptions{},
        ConvertOptions{.to = "int8_row", .exclude = {R"(blocks\.0\.q)"}, .full_precision_matrix_mult = true},
        ConvertOptions{.to = "int8_blockwise:block_size=32", .fallback = "fp16", .seed = 4, .effort = 0},
        ConvertOptions{.to = "float8_e5m2", .drop = {"counter"}, .rounding = Rounding::Mode::stochastic, .seed = 9}}) {
    convert(file, options);
    const std::string bytes = file_bytes(out());
    const auto origin = origin_of(checkpoint::Model::open(out()).source().metadata());
    ASSERT_TRUE(origin);
    convert(file, recipe_from_json(origin->recipe));
    EXPECT_TRUE(file_bytes(out()) == bytes) << origin->recipe;
  }
}

TEST_F(Replay, TheHeaderHoldsOneEntryOfThisProgram) {
  auto rng = test::test_rng();
  auto file = small_model(rng);
  file.metadata["title"] = "kept";
  // What earlier conversions left is replaced, whatever version wrote it.
  file.metadata["mezzotint"] = R"({"version":"0","recipe":{"version":1}})";
  file.metadata["mezzotint_recipe"] = "{}";
  file.metadata["mezzotint_version"] = "0.0.1";
  ConvertOptions options{.exclude = {"up"}};
  const auto entries = [&] {
    std::map<std::string, std::string> found = convert(file, options).metadata;
    EXPECT_EQ(found.at("title"), "kept");
    std::erase_if(found, [](const auto& entry) { return !entry.first.starts_with("mezzotint"); });
    EXPECT_EQ(found.size(), 1u);
    return json::parse(found.at("mezzotint"));
  };
  json origin = entries();
  EXPECT_EQ(origin, (json{{"version", kVersion}, {"recipe", json::parse(recipe_json(options))}}));
  options.effort = 2;
  origin = entries();
  EXPECT_THAT(origin.at("kernels").get<std::string>(), testing::StartsWith(dense::blas_name()))
      << "they decide bytes now";
}

// --- whose recipe it is

constexpr const char* kNamed =
    R"({"version":1,"name":"mine","revision":3,"description":"for people","to":"fp16","exclude":["a"]})";

TEST(NamedRecipe, IsInTheHeaderWithItsRevision) {
  const ConvertOptions options = recipe_from_json(kNamed);
  EXPECT_EQ(recipe_json(options),
            R"({"version":1,"name":"mine","revision":3,"to":"fp16","preset":"auto","exclude":["a"]})");
  EXPECT_EQ(recipe_json(recipe_from_json(R"({"version":1,"name":"x"})")),
            R"({"version":1,"name":"x","revision":1,"to":"float8_e4m3fn","preset":"auto"})");
}

TEST(NamedRecipe, SaysWhatIsNotTheRecipes) {
  ConvertOptions options = recipe_from_json(kNamed);
  options.max_memory = 5;  // decides nothing
  EXPECT_FALSE(json::parse(recipe_json(options)).contains("modified"));
  options.exclude.clear();
  options.effort = 3;
  const std::string text = recipe_json(options);
  EXPECT_EQ(json::parse(text).at("modified"), (json{"exclude", "effort"}));
  // Read again, it stays so, also if another option changes.
  ConvertOptions again = recipe_from_json(text);
  EXPECT_EQ(recipe_json(again), text);
  again.to = "bf16";
  EXPECT_EQ(json::parse(recipe_json(again)).at("modified"), (json{"to", "exclude", "effort"}));
}

TEST(NamedRecipe, RefusesWhatMakesNoSense) {
  for (const char* text : {R"({"version":1,"name":""})", R"({"version":1,"name":"a/b"})", R"({"version":1,"name":7})",
                           R"({"version":1,"name":"a","revision":0})", R"({"version":1,"name":"a","revision":"1"})",
                           R"({"version":1,"name":"a","revision":-1})", R"({"version":1,"revision":1})",
                           R"({"version":1,"name":"a","modified":["colour"]})", R"({"version":1,"modified":["to"]})",
                           R"({"version":1,"name":"a","modified":"to"})", R"({"version":1,"description":[]})"})
    EXPECT_EQ(error_of([&] { recipe_from_json(text); }), "bad-recipe") << text;
}

// --- headers

TEST(Origin, ComesBackAsItWasWritten) {
  const Origin written{"1.2.3", "kernels of a kind", recipe_json(everything())};
  const auto read = origin_of({{"title", "x"}, {"mezzotint", origin_json(written)}});
  ASSERT_TRUE(read);
  EXPECT_EQ(read->version, written.version);
  EXPECT_EQ(read->kernels, written.kernels);
  EXPECT_EQ(read->recipe, written.recipe);
}

TEST(Origin, OfEarlierVersionsIsRead) {
  const auto read = origin_of({{"mezzotint_recipe", recipe_json({})}, {"mezzotint_version", "0.1.0"}});
  ASSERT_TRUE(read);
  EXPECT_EQ(read->version, "0.1.0");
  EXPECT_EQ(read->recipe, recipe_json({}));
  EXPECT_TRUE(is_origin_key("mezzotint_recipe") && is_origin_key("mezzotint_version") && is_origin_key("mezzotint"));
  EXPECT_FALSE(is_origin_key("mezzotint_calibration"));
}

TEST(Origin, AnybodysHeaderIsHarmless) {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  for (const std::string& text : {std::string("{"), std::string("7"), std::string("{}"), std::string(R"({"recipe":7})"),
                                  R"({"recipe":{"a":)" + deep + "}}"})
    EXPECT_FALSE(origin_of({{"mezzotint", text}})) << text.substr(0, 60);
  EXPECT_FALSE(origin_of({{"title", "none"}}));
  EXPECT_TRUE(origin_of({{"mezzotint", "?"}, {"mezzotint_recipe", recipe_json({})}}));
  EXPECT_EQ(origin_of({{"mezzotint", R"({"version":3,"kernels":[],"recipe":{}})"}})->kernels, "");
}

}  // namespace
}  // namespace mezzotint::convert
