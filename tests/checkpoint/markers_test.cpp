#include "mezzotint/checkpoint/marker.h"

#include <nlohmann/json.hpp>

#include "checkpoint/model_files.h"
#include "mezzotint/checkpoint/markers_in.h"

namespace mezzotint::checkpoint {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;
using test::sound_fp8_file;
using test::text_tensor;

using Markers = ModelFile;

constexpr const char* kFp8 = R"({"format": "float8_e4m3fn"})";

RawFile fp8_layer(const std::string& marker) {
  return one_layer(codes_tensor("F8_E4M3", {4, 8}), f32_tensor({}, {0.5f}), marker);
}
RawFile with_header(RawFile file, const std::string& layers) {
  file.metadata["_quantization_metadata"] = R"({"format_version": "1.0", "layers": )" + layers + "}";
  return file;
}

TEST_F(Markers, TensorMayHaveWhiteSpaceAround) {
  for (const std::string& marker :
       {std::string(kFp8), "\n\t  " + std::string(kFp8) + " \r\n", std::string(R"({"format":"float8_e4m3fn"})")}) {
    const Model model = open(fp8_layer(marker));
    EXPECT_EQ(only(model).dialect, Dialect::comfy_quant);
    EXPECT_TRUE(only(model).consistent);
    EXPECT_FALSE(only(model).full_precision_matrix_mult);
    EXPECT_EQ(codes(model, true), Codes{});
  }
}

TEST_F(Markers, NestedParamsCountUnlessTheTopLevelSaysOtherwise) {
  const auto flag = [&](const std::string& marker) { return only(open(fp8_layer(marker))).full_precision_matrix_mult; };
  EXPECT_TRUE(flag(R"({"format": "float8_e4m3fn", "params": {"full_precision_matrix_mult": true}})"));
  EXPECT_FALSE(flag(
      R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": false, "params": {"full_precision_matrix_mult": true}})"));
  EXPECT_TRUE(flag(R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": true, "params": 7})"));
  EXPECT_FALSE(flag(R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": "true"})"));
  EXPECT_FALSE(flag(R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": 1})"));
}

TEST_F(Markers, TensorThatIsNoMarker) {
  const std::string deep =
      R"({"format": "float8_e4m3fn", "a": )" + std::string(400'000, '[') + std::string(400'000, ']') + "}";
  const std::string texts[] = {" ",
                               "{",
                               "[]",
                               "7",
                               "null",
                               R"({"format": 8})",
                               R"({"form": "float8_e4m3fn"})",
                               "\xff\xfe",
                               R"({"format": "float8_e4m3fn"}x)",
                               deep};
  for (const std::string& marker : texts) {
    const Model model = open(fp8_layer(marker));
    EXPECT_EQ(only(model).dialect, Dialect::inferred) << marker.substr(0, 40);
    EXPECT_TRUE(only(model).consistent);
    EXPECT_EQ(codes(model), (Codes{"bad-marker", "missing-marker"})) << marker.substr(0, 40);
    EXPECT_EQ(role(model, "a.comfy_quant"), Role::marker);
  }
}

TEST_F(Markers, TensorOfAnotherTypeOrSize) {
  RawFile floats = fp8_layer("");
  floats.tensors.emplace_back("a.comfy_quant", f32_tensor({2}, {1, 2}));
  EXPECT_EQ(codes(open(floats)), (Codes{"bad-marker", "missing-marker"}));
  RawFile huge = fp8_layer(kFp8 + std::string((1 << 20) + 1, ' '));
  EXPECT_EQ(codes(open(huge)), (Codes{"bad-marker", "missing-marker"}));
  RawFile scalar = fp8_layer("");
  scalar.tensors.emplace_back("a.comfy_quant", RawTensor{"U8", {}, "{"});
  EXPECT_EQ(codes(open(scalar)), (Codes{"bad-marker", "missing-marker"}));
  RawFile signed_bytes = fp8_layer(kFp8);
  signed_bytes.at("a.comfy_quant").dtype = "I8";
  EXPECT_EQ(only(open(signed_bytes)).dialect, Dialect::comfy_quant);
}

TEST_F(Markers, HeaderObjects) {
  const Model model = open(with_header(fp8_layer(""), R"({"a": {"format": "float8_e4m3fn"}})"));
  EXPECT_TRUE(model.has_header_metadata());
  EXPECT_EQ(only(model).dialect, Dialect::header);
  EXPECT_EQ(codes(model), Codes{});
  EXPECT_FALSE(only(model).marker_tensor);
}

TEST_F(Markers, HeaderBareStrings) {
  const Model model = open(with_header(fp8_layer(""), R"({"a": "float8_e4m3fn"})"));
  EXPECT_EQ(only(model).dialect, Dialect::header);
  EXPECT_TRUE(only(model).consistent);
  EXPECT_EQ(codes(model), Codes{"bad-header-metadata"});
}

TEST_F(Markers, HeaderNamesWithoutOrBeyondTheFilesPrefix) {
  for (const std::string prefix : {"model.diffusion_model.", "diffusion_model.", "model."}) {
    RawFile inside;
    for (auto& [name, tensor] : fp8_layer("").tensors) inside.tensors.emplace_back(prefix + name, tensor);
    const Model without = open(with_header(inside, R"({"a": {"format": "float8_e4m3fn"}})"));
    EXPECT_EQ(only(without).dialect, Dialect::header) << prefix;
    EXPECT_EQ(only(without).name, prefix + "a");
    EXPECT_EQ(codes(without), Codes{"prefix-mismatch"});

    const Model beyond = open(with_header(fp8_layer(""), R"({")" + prefix + R"(a": {"format": "float8_e4m3fn"}})"));
    EXPECT_EQ(only(beyond).name, "a");
    EXPECT_EQ(only(beyond).dialect, Dialect::header) << prefix;
    EXPECT_EQ(codes(beyond), Codes{"prefix-mismatch"});
  }
}

TEST_F(Markers, HeaderEntriesWithoutWeightOrFormat) {
  const Model model = open(with_header(
      fp8_layer(""), R"({"a": {"format": "float8_e4m3fn"}, "gone": {"format": "x"}, "b": {}, "c": 7, "d": null})"));
  EXPECT_EQ(codes(model), (Codes{"orphan-marker", "bad-marker", "bad-marker", "bad-marker"}));
  EXPECT_EQ(only(model).dialect, Dialect::header);
}

TEST_F(Markers, HeaderThatIsNoMetadata) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("{}"), std::string(R"({"layers": 1})"),
        std::string(R"({"layers": []})"), std::string(""), deep}) {
    RawFile file = fp8_layer(kFp8);
    file.metadata["_quantization_metadata"] = text;
    const Model model = open(file);
    EXPECT_EQ(codes(model), Codes{"bad-header-metadata"}) << text.substr(0, 40);
    EXPECT_EQ(only(model).dialect, Dialect::comfy_quant);  // the tensor's own still counts
    EXPECT_TRUE(model.has_header_metadata());
  }
}

TEST_F(Markers, BothFormsAgreeOrTheHeaderWins) {
  EXPECT_EQ(codes(open(sound_fp8_file())), Codes{});
  const Model model =
      open(with_header(fp8_layer(kFp8), R"({"a": {"format": "float8_e4m3fn", "full_precision_matrix_mult": true}})"));
  EXPECT_EQ(codes(model), Codes{"markers-disagree"});
  EXPECT_TRUE(only(model).full_precision_matrix_mult);
  EXPECT_EQ(only(model).dialect, Dialect::header);
  EXPECT_TRUE(only(model).marker_tensor);

  const Model other = open(with_header(one_layer(codes_tensor("I8", {4, 8}), f32_tensor({}, {1}), kFp8),
                                       R"({"a": {"format": "int8_tensorwise"}})"));
  EXPECT_EQ(codes(other), Codes{"markers-disagree"});
  EXPECT_EQ(only(other).layout.format->name, "int8_tensorwise");
}

TEST_F(Markers, WhatAWriterLeavesOutIsTheDefault) {
  const Model same = open(with_header(
      fp8_layer(R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": false, "orig_dtype": "torch.bfloat16"})"),
      R"({"a": {"format": "float8_e4m3fn", "convrot": false}})"));
  EXPECT_EQ(codes(same), Codes{});
}

TEST_F(Markers, TextIsThatOfPythonWriters) {
  const auto text = [&](const std::string& format, const Shape& shape, bool flag) {
    const auto selection = formats::select_format(format);
    return marker_text(*selection.format->describe({.shape = shape}, selection.options).layout, flag);
  };
  EXPECT_EQ(text("float8_e4m3fn", {4, 8}, false), R"({"format": "float8_e4m3fn"})");
  EXPECT_EQ(text("float8_e5m2", {4, 8}, true), R"({"format": "float8_e5m2", "full_precision_matrix_mult": true})");
  EXPECT_EQ(text("int8_row", {4, 8}, false), R"({"format": "int8_tensorwise", "per_row": true})");
  EXPECT_EQ(text("int8_blockwise:block_size=4", {4, 8}, true),
            R"({"format": "int8_blockwise", "group_size": 4, "full_precision_matrix_mult": true})");
}

TEST_F(Markers, HeaderTextHoldsEveryLayerAndAnyName) {
  const std::string odd = "a \"quoted\" \\ name\n\xc3\xa9";
  const std::pair<std::string, std::string> layers[] = {{"x.y", R"({"format": "f"})"}, {odd, R"({"format": "g"})"}};
  const auto root = nlohmann::json::parse(header_text(layers));
  EXPECT_EQ(root["format_version"], "1.0");
  EXPECT_EQ(root["layers"].size(), 2u);
  EXPECT_EQ(root["layers"]["x.y"]["format"], "f");
  EXPECT_EQ(root["layers"][odd]["format"], "g");
  EXPECT_EQ(header_text({}), R"({"format_version": "1.0", "layers": {}})");
}

TEST(ForeignJson, DepthIsBounded) {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_foreign_json(nested(64)).is_array());
  EXPECT_TRUE(parse_foreign_json(nested(65)).is_discarded());
  EXPECT_TRUE(
      parse_foreign_json(R"({"a": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["})")
          .is_object());
  EXPECT_TRUE(parse_foreign_json(R"({"a": "\")" + std::string(100, '{') + R"(\\"})").is_object());
  EXPECT_TRUE(parse_foreign_json("").is_discarded());
  std::string flat = "[";
  for (int i = 0; i < 200; ++i) flat += "[],";
  EXPECT_TRUE(parse_foreign_json(flat + "{}]").is_array());
}

}  // namespace
}  // namespace mezzotint::checkpoint
