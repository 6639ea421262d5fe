#include "mezzotint/convert/layer_config.h"

#include <gmock/gmock.h>

#include "convert/shapes.h"
#include "mezzotint/base/error.h"
#include "mezzotint/convert/rules.h"

namespace mezzotint::convert {
namespace {

using testing::HasSubstr;

const std::vector<std::string> kNames = {"blocks.1.attn.q", "blocks.10.attn.q", "blocks.1.mlp.0", "final"};

LayerConfig parse(std::string_view text, bool fullmatch = false) {
  return LayerConfig::parse(text, kNames, fullmatch);
}

std::string key_for(const LayerConfig& config, std::string_view name) {
  const LayerSettings* found = config.find(name);
  return found ? found->key : "";
}

std::string problem_of(std::string_view text) {
  try {
    parse(text);
  } catch (const Error& error) {
    return std::string(error.name()) + ": " + error.what();
  }
  return "";
}

TEST(LayerConfig, ReadsEveryField) {
  const auto config = parse(R"({"_comment": 1, "_exclusions": [], "mlp": {"format": "int8_blockwise", "block_size": 64,
      "scaling_mode": "block", "simple": true, "full_precision_matrix_mult": false, "_shape": [1, 2]}})");
  const LayerSettings* mlp = config.find("blocks.1.mlp.0");
  ASSERT_TRUE(mlp && mlp->selection);
  EXPECT_EQ(mlp->selection->format->name, "int8_blockwise");
  EXPECT_EQ(mlp->selection->options.integer("block_size"), 64);
  EXPECT_EQ(mlp->simple, true);
  EXPECT_EQ(mlp->full_precision_matrix_mult, false);
  EXPECT_FALSE(mlp->skip);
  EXPECT_EQ(config.find("final"), nullptr);
  EXPECT_EQ(config.fallback(), nullptr);
  EXPECT_TRUE(parse(R"({"final": {"skip": true}})").find("final")->skip);
}

TEST(LayerConfig, ScalingModeMeansWhatItSays) {
  const auto selection = [](const char* entry) {
    return parse(std::string(R"({"final": )") + entry + "}").find("final")->selection->label();
  };
  const auto plain = [](const char* text) { return formats::select_format(text).label(); };
  EXPECT_EQ(selection(R"({"format": "int8_tensorwise", "scaling_mode": "row"})"), plain("int8_row"));
  EXPECT_EQ(selection(R"({"format": "int8_tensorwise", "scaling_mode": "tensor"})"), plain("int8_tensor"));
  EXPECT_NE(plain("int8_row"), plain("int8_tensor"));
  EXPECT_EQ(selection(R"({"format": "float8_e4m3fn", "scaling_mode": "tensor"})"), plain("float8_e4m3fn"));
  EXPECT_EQ(selection(R"({"format": "int8_blockwise", "scaling_mode": "block2d", "block_size": 96})"),
            plain("int8_blockwise:block_size=96"));
  EXPECT_THAT(problem_of(R"({"final": {"format": "float8_e4m3fn", "scaling_mode": "row"}})"),
              HasSubstr("float8_e4m3fn cannot scale by row (expected row, found tensor)"));
  EXPECT_THAT(problem_of(R"({"final": {"format": "int8_tensorwise", "scaling_mode": "block"}})"),
              HasSubstr("cannot scale by block"));
  EXPECT_THAT(problem_of(R"({"final": {"format": "int8", "scaling_mode": "diagonal"}})"),
              HasSubstr("unknown scaling_mode"));
}

TEST(LayerConfig, MostSpecificWins) {
  const auto config = parse(R"({"blocks\\.\\d+\\.attn": {"format": "fp16"}, "attn": {"skip": true},
      "blocks.1.attn.q": {"format": "bf16"}, ".*": {"format": "fp32"}})");
  EXPECT_EQ(key_for(config, "blocks.1.attn.q"), "blocks.1.attn.q");        // the name itself
  EXPECT_EQ(key_for(config, "blocks.10.attn.q"), R"(blocks\.\d+\.attn)");  // 12 literals against 4
  EXPECT_EQ(key_for(config, "other.attn"), "attn");
  EXPECT_EQ(key_for(config, "final"), ".*");
  // A name is no regex, though as one it would match inside others.
  EXPECT_EQ(key_for(parse(R"({"blocks.1.attn.q": {"skip": true}})"), "xblocks.1.attn.q2"), "");
  EXPECT_EQ(key_for(parse(R"({"blocks.1.attn.": {"skip": true}})"), "xblocks.1.attn.q2"), "blocks.1.attn.");
  // Equal lengths: the first in the file.
  EXPECT_EQ(key_for(parse(R"({"fina": {"skip": true}, "inal": {"skip": true}})"), "final"), "fina");
  EXPECT_EQ(key_for(parse(R"({"inal": {"skip": true}, "fina": {"skip": true}})"), "final"), "inal");
}

TEST(LayerConfig, SearchOrFullmatch) {
  const char* text = R"({"attn": {"skip": true}})";
  EXPECT_EQ(key_for(parse(text), "blocks.1.attn.q"), "attn");
  EXPECT_EQ(key_for(parse(text, true), "blocks.1.attn.q"), "");
  EXPECT_EQ(key_for(parse(R"({".*attn.*": {"skip": true}})", true), "blocks.1.attn.q"), ".*attn.*");
  // The name without the component's prefix counts too.
  const auto config = parse(R"({"^blocks": {"skip": true}})");
  EXPECT_EQ(config.find("model.blocks.1"), nullptr);
  EXPECT_NE(config.find("model.blocks.1", "blocks.1"), nullptr);
}

TEST(LayerConfig, LiteralLength) {
  EXPECT_EQ(literal_length("attn"), 4u);
  EXPECT_EQ(literal_length(R"(a\.b)"), 3u);
  EXPECT_EQ(literal_length("a.b"), 3u);
  EXPECT_EQ(literal_length(".*"), 0u);
  EXPECT_EQ(literal_length(R"(\d+\w)"), 0u);
  EXPECT_EQ(literal_length("[a-z]{2,3}x"), 1u);
  EXPECT_EQ(literal_length("(?:ab|cd)(?!e)"), 5u);
  EXPECT_EQ(literal_length("(?P<name>ab)"), 2u);
  EXPECT_EQ(literal_length("[unclosed"), 0u);
}

TEST(LayerConfig, EveryMistakeHasItsMessage) {
  const std::pair<const char*, const char*> cases[] = {
      {"[1]", "must be an object"},
      {"{", "not valid JSON"},
      {R"({"a": 1})", "entry 'a': must be an object"},
      {R"({"a": {"format": "int8", "blok_size": 1}})", "'blok_size' is not a field, nor an option of int8_tensorwise"},
      {R"({"a": {"format": "float8_e4m3fn", "block_size": 64}})", "'block_size' is not a field, nor an option"},
      {R"({"a": {"block_size": 64}})", "'block_size' needs a 'format'"},
      {R"({"a": {"format": 8}})", "'format' must be text"},
      {R"({"a": {"skip": "yes"}})", "'skip' must be true or false"},
      {R"({"a": {"skip": true, "format": "int8"}})", "'skip' keeps the layer"},
      {R"({"a": {"format": "int8_blockwise", "block_size": [1]}})", "must be a number"},
      {R"({"a": {"skip": true}, "a": {"format": "int8"}})", "the key 'a' is given twice"},
      {R"({"a": {"skip": true, "skip": false}})", "the key 'skip' is given twice"},
      {R"({"a": {"format": "int9"}})", "unknown-format"},
      {R"({"a": {"format": "int8_blockwise", "block_size": 0}})", "bad-option"},
      {R"({"a(": {"skip": true}})", "bad-regex"},
      {R"({"a(": {"format": ""}})", "bad-regex"},
  };
  for (const auto& [text, message] : cases) EXPECT_THAT(problem_of(text), HasSubstr(message)) << text;
  EXPECT_EQ(problem_of(R"({"a": {"skip": true}, "b": {"skip": true}})"), "");  // the same field in two entries is fine
}

TEST(LayerConfig, TemplateLoadsBackAsNoChange) {
  const TemplateLayer layers[] = {{"blocks.1.attn.q", {64, 32}, "float8_e4m3fn"}, {"final", {64, 64}, "keep"}};
  const std::string text = layer_config_template(layers);
  EXPECT_THAT(text, HasSubstr("\"_decision\": \"keep\""));
  const auto config = parse(text);
  for (const std::string& name : kNames) EXPECT_EQ(config.find(name), nullptr) << name;
  EXPECT_EQ(config.fallback(), nullptr);
  EXPECT_TRUE(config.unused(kNames).empty());

  std::string edited = text;
  edited.replace(edited.find("\"format\": \"\"", edited.find("\"final\"")), 12, "\"format\": \"fp16\"");
  EXPECT_EQ(parse(edited).find("final")->selection->format->name, "fp16");
}

TEST(LayerConfig, NamesKeysThatMatchNothing) {
  EXPECT_THAT(parse(R"({"atn": {"skip": true}, "attn": {"skip": true}})").unused(kNames), testing::ElementsAre("atn"));
}

TEST(LayerConfig, InTheRules) {
  const Shape shape = {64, 64};
  const auto decide = [&](const char* text, const char* tensor, std::vector<std::string> exclude = {}) {
    RuleOptions options{.preset = &select_preset("generic"), .exclude = std::move(exclude)};
    options.layer_config = LayerConfig::parse(text, {}, false);
    return LayerRules(std::move(options)).decide(tensor, shape, true);
  };
  // An entry beats the rules and --exclude.
  auto decision = decide(R"({"final_layer": {"format": "int8"}})", "final_layer.linear.weight", {"."});
  EXPECT_TRUE(decision.quantize);
  EXPECT_EQ(decision.by, DecidedBy::layer_config);
  EXPECT_EQ(decision.selection->format->name, "int8_tensorwise");
  EXPECT_FALSE(decide(R"({"attn": {"skip": true}})", "attn.q.weight").quantize);
  // `_default` changes the format, but not what is kept.
  const char* rest = R"({"_default": {"format": "fp16"}})";
  EXPECT_EQ(decide(rest, "attn.q.weight").selection->format->name, "fp16");
  EXPECT_FALSE(decide(rest, "final_layer.linear.weight").quantize);
  EXPECT_FALSE(decide(R"({"_default": {"skip": true}})", "attn.q.weight").quantize);
  // An entry without a format leaves the decision to the rules.
  decision = decide(R"({".": {"full_precision_matrix_mult": true}})", "final_layer.linear.weight");
  EXPECT_FALSE(decision.quantize);
  decision = decide(R"({".": {"full_precision_matrix_mult": true}})", "attn.q.weight");
  EXPECT_TRUE(decision.quantize);
  EXPECT_EQ(decision.full_precision_matrix_mult, true);
  EXPECT_FALSE(decision.selection);
}

}  // namespace
}  // namespace mezzotint::convert
