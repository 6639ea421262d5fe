#include "mezzotint/convert/recipe.h"

#include "convert/conversion.h"

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
    const auto recipe = recipe_of(checkpoint::Model::open(out()).source().metadata());
    ASSERT_TRUE(recipe);
    convert(file, recipe_from_json(*recipe));
    EXPECT_TRUE(file_bytes(out()) == bytes) << *recipe;
  }
  EXPECT_FALSE(recipe_of({{"title", "none"}}));
}

}  // namespace
}  // namespace mezzotint::convert
