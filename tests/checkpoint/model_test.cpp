#include "mezzotint/checkpoint/model.h"

#include <nlohmann/json.hpp>

#include "checkpoint/model_files.h"
#include "mezzotint/checkpoint/verify.h"

namespace mezzotint::checkpoint {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;
using test::sound_fp8_file;
using test::text_tensor;

using CheckpointModel = ModelFile;
using nlohmann::json;

// --- legacy scaled_fp8
// ------------------------------------------------------------------------------------------------

RawFile legacy_file(const std::string& prefix, int64_t marker_elements) {
  RawFile file;
  file.tensors.emplace_back(prefix + "scaled_fp8",
                            RawTensor{"F8_E4M3", {marker_elements}, std::string(size_t(marker_elements), '\0')});
  file.tensors.emplace_back(prefix + "a.weight", codes_tensor("F8_E4M3", {4, 8}));
  file.tensors.emplace_back(prefix + "a.scale_weight", f32_tensor({}, {0.5f}));
  file.tensors.emplace_back(prefix + "a.scale_input", f32_tensor({}, {2.0f}));
  file.tensors.emplace_back(prefix + "b.weight", bf16_tensor({4, 8}));
  file.tensors.emplace_back(prefix + "b.scale_weight", f32_tensor({1}, {1.0f}));
  file.tensors.emplace_back("elsewhere.bias", f32_tensor({4}, {1, 2, 3, 4}));
  return file;
}

TEST_F(CheckpointModel, LegacyFilesOfEveryPrefix) {
  for (const std::string prefix : {"", "model.diffusion_model.", "text_encoders.t5xxl."})
    for (const int64_t elements : {0, 1, 2, 3}) {
      const Model model = open(legacy_file(prefix, elements));
      const Layer& layer = only(model);
      EXPECT_EQ(layer.name, prefix + "a");
      EXPECT_EQ(layer.dialect, Dialect::scaled_fp8);
      EXPECT_EQ(layer.full_precision_matrix_mult, elements == 2) << elements;
      EXPECT_TRUE(layer.consistent);
      EXPECT_EQ(layer.marker, "");
      EXPECT_EQ(codes(model), Codes{});
      EXPECT_EQ(codes(model, true), Codes{"orphan-scale"});
      EXPECT_EQ(role(model, prefix + "scaled_fp8"), Role::file_marker);
      EXPECT_EQ(role(model, prefix + "a.weight"), Role::codes);
      EXPECT_EQ(role(model, prefix + "a.scale_weight"), Role::parameter);
      EXPECT_EQ(role(model, prefix + "a.scale_input"), Role::activation);
      EXPECT_EQ(role(model, prefix + "b.weight"), Role::plain);
      EXPECT_EQ(role(model, prefix + "b.scale_weight"), Role::orphan);
      EXPECT_EQ(role(model, "elsewhere.bias"), Role::plain);
      EXPECT_EQ(floats(model, layer), std::vector<float>{0.5f});
    }
}

TEST_F(CheckpointModel, LegacyMarkerOfTheNearestPrefixCounts) {
  RawFile file = legacy_file("", 0);
  for (auto& entry : legacy_file("t5.", 2).tensors)
    if (entry.first.starts_with("t5.")) file.tensors.push_back(entry);
  for (const bool reversed : {false, true}) {
    if (reversed) std::reverse(file.tensors.begin(), file.tensors.end());
    const Model model = open(file);
    EXPECT_FALSE(find(model, "a")->full_precision_matrix_mult);
    EXPECT_TRUE(find(model, "t5.a")->full_precision_matrix_mult);
  }
}

TEST_F(CheckpointModel, LegacyOutsideOfThePrefixIsOnlyInferred) {
  RawFile file = legacy_file("p.", 0);
  for (auto& [name, tensor] : file.tensors)
    if (name == "p.a.weight" || name == "p.a.scale_weight") name = "q" + name.substr(1);
  const Model model = open(file);
  EXPECT_EQ(only(model).dialect, Dialect::inferred);
  EXPECT_TRUE(codes(model).count("missing-marker") == 1);
}

TEST_F(CheckpointModel, LegacyE5m2IsReadAsWhatItIs) {
  RawFile file = legacy_file("", 0);
  file.at("a.weight").dtype = "F8_E5M2";
  const Model model = open(file);
  EXPECT_EQ(only(model).layout.format->name, "float8_e5m2");
  EXPECT_EQ(only(model).dialect, Dialect::scaled_fp8);
}

TEST_F(CheckpointModel, LegacyActivationScaleOfOneIsAPlaceholder) {
  for (const float value : {1.0f, 0.75f})
    for (const bool wide : {true, false}) {
      RawFile file = legacy_file("", 0);
      file.at("a.scale_input") =
          wide ? f32_tensor({1}, {value}) : bf16_tensor({}, value == 1.0f ? uint16_t{0x3f80} : uint16_t{0x3f40});
      const Model model = open(file);
      EXPECT_EQ(only(model).input_scale.has_value(), value != 1.0f);
      EXPECT_EQ(role(model, "a.scale_input"), value == 1.0f ? Role::orphan : Role::activation);
      EXPECT_EQ(codes(model), Codes{});
    }
  RawFile today = sound_fp8_file();  // in the new dialect a scale of 1 is a scale
  today.tensors.emplace_back("a.input_scale", f32_tensor({}, {1.0f}));
  EXPECT_EQ(role(open(today), "a.input_scale"), Role::activation);
}

TEST_F(CheckpointModel, LegacyScaleThatCannotBeReadIsNoPlaceholder) {
  RawFile file = legacy_file("", 0);
  file.at("a.scale_weight") = f32_tensor({3}, rising(3));
  const Model model = open(file);
  EXPECT_TRUE(model.layers().empty());
  EXPECT_EQ(codes(model), (Codes{"orphan-scale", "orphan-scale"}));  // the scales of `a`; b's is a note
}

TEST_F(CheckpointModel, LegacyMarkerHasNoSayBesideHeaderMetadata) {
  RawFile file = legacy_file("", 2);
  file.metadata["_quantization_metadata"] = R"({"layers": {"a": {"format": "float8_e4m3fn"}}})";
  const Model model = open(file);
  EXPECT_EQ(only(model).dialect, Dialect::header);
  EXPECT_FALSE(only(model).full_precision_matrix_mult);
  EXPECT_EQ(role(model, "scaled_fp8"), Role::file_marker);
}

TEST_F(CheckpointModel, BothSpellingsOfAScale) {
  for (const bool old_first : {true, false}) {
    RawFile file = legacy_file("", 0);
    auto today = std::pair<std::string, RawTensor>("a.weight_scale", f32_tensor({}, {0.125f}));
    file.tensors.insert(old_first ? file.tensors.end() : file.tensors.begin(), today);
    const Model model = open(file);
    EXPECT_EQ(floats(model, only(model)), std::vector<float>{0.125f}) << old_first;
    EXPECT_EQ(role(model, "a.weight_scale"), Role::parameter);
    EXPECT_EQ(role(model, "a.scale_weight"), Role::orphan);
  }
}

// --- scales without markers, labels that lie
// --------------------------------------------------------------------------

struct Case {
  const char* label;  // "" = no marker
  const char* dtype;
  std::vector<int64_t> weight, scale;
  const char* format;
  const char* options;
  Codes codes;
};

class Recognised : public ModelFile, public testing::WithParamInterface<Case> {};

TEST_P(Recognised, As) {
  const Case& c = GetParam();
  int64_t count = 1;
  for (const int64_t side : c.scale) count *= side;
  const auto scales = rising(size_t(count));
  const RawFile file = one_layer(codes_tensor(c.dtype, c.weight), f32_tensor(c.scale, scales),
                                 *c.label ? json{{"format", c.label}}.dump() : "");
  const Model model = open(file);
  const Layer& layer = only(model);
  EXPECT_EQ(layer.layout.format->name, c.format);
  // Options that the case does not name have their defaults.
  EXPECT_EQ(layer.layout.options.to_text(),
            formats::complete_options(*layer.layout.format, formats::parse_options(c.options)).to_text());
  EXPECT_TRUE(layer.consistent);
  EXPECT_EQ(codes(model), c.codes);
  EXPECT_EQ(layer.dialect, *c.label ? Dialect::comfy_quant : Dialect::inferred);
  EXPECT_EQ(floats(model, layer), scales);
  EXPECT_EQ(layer.layout.shape, c.weight);
  ASSERT_EQ(layer.parts.size(), 2u);
  EXPECT_EQ(name_of(model, layer.parts[0]), "a.weight");
  EXPECT_EQ(name_of(model, layer.parts[1]), "a.weight_scale");
}

const Codes kSilent{}, kMissing{"missing-marker"}, kWrong{"mislabelled", "wrong-shape-or-dtype"};

INSTANTIATE_TEST_SUITE_P(
    Layers, Recognised,
    testing::Values(
        // no marker at all
        Case{"", "F8_E4M3", {4, 8}, {}, "float8_e4m3fn", "", kMissing},
        Case{"", "F8_E5M2", {4, 8}, {1}, "float8_e5m2", "", kMissing},
        Case{"", "I8", {4, 8}, {}, "int8_tensorwise", "scaling=tensor", kMissing},
        Case{"", "I8", {4, 8}, {4, 1}, "int8_tensorwise", "scaling=row", kMissing},
        Case{"", "I8", {8, 16}, {2, 4}, "int8_blockwise", "block_size=4,geometry=tile", kMissing},
        Case{"", "I8", {8, 16}, {8, 4, 1}, "int8_blockwise", "block_size=4,geometry=row_group", kMissing},
        // true labels
        Case{"int8_tensorwise", "I8", {4, 8}, {4, 1}, "int8_tensorwise", "scaling=row", kSilent},
        Case{"int8_blockwise", "I8", {128, 256}, {1, 2}, "int8_blockwise", "block_size=128,geometry=tile", kSilent},
        Case{"int8_blockwise",
             "I8",
             {4, 256},
             {4, 2, 1},
             "int8_blockwise",
             "block_size=128,geometry=row_group",
             kSilent},
        // int8_axiswise is int8_tensorwise by row with a flat scale
        Case{"int8_axiswise",
             "I8",
             {4, 8},
             {4},
             "int8_tensorwise",
             "scaling=row",
             {"mislabelled", "wrong-shape-or-dtype", "wrong-shape-or-dtype"}},
        Case{"int8_axiswise",
             "I8",
             {8, 8},
             {8},
             "int8_tensorwise",
             "scaling=row",
             {"mislabelled", "wrong-shape-or-dtype", "wrong-shape-or-dtype"}},
        // convert_to_quant's converter calls scales per row and per tensor block-wise
        Case{"int8_blockwise", "I8", {256, 512}, {256, 1}, "int8_tensorwise", "scaling=row", kWrong},
        Case{"int8_blockwise", "I8", {256, 512}, {}, "int8_tensorwise", "scaling=tensor", kWrong},
        // fp8 under a neighbour's name
        Case{"float8_e4m3fn", "F8_E5M2", {4, 8}, {}, "float8_e5m2", "", kWrong}));

TEST_F(CheckpointModel, ParametersAreConverted) {
  const std::string row = R"({"format": "int8_tensorwise", "per_row": true})";
  const std::vector<float> values = {0.5f, 1.0f, 2.0f, 4.0f};
  const RawTensor narrow{"BF16", {4, 1}, test::raw_bytes(std::vector<uint16_t>{0x3f00, 0x3f80, 0x4000, 0x4080})};
  const RawTensor half{"F16", {4, 1}, test::raw_bytes(std::vector<uint16_t>{0x3800, 0x3c00, 0x4000, 0x4400})};
  const RawTensor wide{"F64", {4, 1}, test::raw_bytes(std::vector<double>{0.5, 1, 2, 4})};
  for (const RawTensor& scale : {narrow, half, wide, f32_tensor({4, 1}, values), f32_tensor({4}, values)}) {
    const Model model = open(one_layer(codes_tensor("I8", {4, 8}), scale, row));
    EXPECT_EQ(floats(model, only(model)), values) << scale.dtype;
    EXPECT_EQ(only(model).layout.tensors[1].shape, (Shape{4, 1}));
  }
  const Model flat =
      open(one_layer(codes_tensor("F8_E4M3", {4, 8}), bf16_tensor({1}), R"({"format": "float8_e4m3fn"})"));
  EXPECT_EQ(floats(flat, only(flat)), std::vector<float>{1.0f});
  EXPECT_EQ(only(flat).layout.tensors[1].shape, Shape{});
}

TEST_F(CheckpointModel, CodesAreReadByRows) {
  const RawFile file = sound_fp8_file();
  const RawTensor stored = codes_tensor("F8_E4M3", {4, 8});
  RawFile changed = file;
  changed.at("b.weight") = stored;
  const Model model = open(changed);
  std::string rows(16, '\0');
  model.read_codes(*find(model, "b"), 1, 2, reinterpret_cast<std::byte*>(rows.data()));
  EXPECT_EQ(rows, stored.bytes.substr(8, 16));
}

// --- what does not fit
// ------------------------------------------------------------------------------------------------

TEST_F(CheckpointModel, FormatsThatAreNotCompiledInAreCarriedAlong) {
  RawFile file = sound_fp8_file();
  const std::string marker = R"({"format": "from_the_future", "params": {"deep": [1, 2]}})";
  file.tensors.emplace_back("f.weight", RawTensor{"U8", {4, 4}, std::string(16, 'x')});
  file.tensors.emplace_back("f.weight_scale", RawTensor{"U8", {4}, "abcd"});
  file.tensors.emplace_back("f.weight_scale_2", f32_tensor({}, {3}));
  file.tensors.emplace_back("f.input_scale", f32_tensor({}, {3}));
  file.tensors.emplace_back("f.comfy_quant", text_tensor(marker));
  const Model model = open(file);
  EXPECT_EQ(model.layers().size(), 2u);
  ASSERT_EQ(model.foreign_layers().size(), 1u);
  EXPECT_EQ(model.foreign_layers()[0].first, "f");
  EXPECT_EQ(json::parse(model.foreign_layers()[0].second), json::parse(marker));
  EXPECT_EQ(codes(model), Codes{"unknown-format"});
  for (const auto& [name, tensor] : file.tensors) {
    const bool foreign = name.starts_with("f.");
    EXPECT_EQ(model.is_foreign(model.source().find(name)), foreign) << name;
    EXPECT_TRUE(!foreign || role(model, name) == Role::plain) << name;
  }
}

TEST_F(CheckpointModel, AMarkedFloatWeightIsCarriedAlong) {
  const Model model = open(one_layer(bf16_tensor({4, 8}), f32_tensor({}, {1}), R"({"format": "float8_e4m3fn"})"));
  EXPECT_TRUE(model.layers().empty());
  EXPECT_EQ(model.foreign_layers().size(), 1u);
  EXPECT_FALSE(codes(model).empty());
}

TEST_F(CheckpointModel, BrokenLayersKeepTheirMarker) {
  RawFile no_scale = sound_fp8_file();
  std::erase_if(no_scale.tensors, [](const auto& entry) { return entry.first == "a.weight_scale"; });
  const Model missing = open(no_scale);
  ASSERT_NE(find(missing, "a"), nullptr);
  EXPECT_FALSE(find(missing, "a")->consistent);
  EXPECT_TRUE(find(missing, "b")->consistent);
  EXPECT_NE(find(missing, "a")->marker, "");
  EXPECT_EQ(codes(missing), Codes{"broken-layer"});

  RawFile wrong_scale = sound_fp8_file();
  wrong_scale.at("a.weight_scale") = f32_tensor({3}, {1, 2, 3});
  const Model wrong = open(wrong_scale);
  EXPECT_FALSE(find(wrong, "a")->consistent);
  EXPECT_EQ(codes(wrong), Codes{"broken-layer"});
}

TEST_F(CheckpointModel, Orphans) {
  RawFile file = sound_fp8_file();
  file.tensors.emplace_back("norm.weight_scale", f32_tensor({}, {1}));
  file.tensors.emplace_back("gone.comfy_quant", text_tensor(R"({"format": "float8_e4m3fn"})"));
  file.tensors.emplace_back("gone.input_scale", f32_tensor({}, {1}));
  file.tensors.emplace_back("comfy_quant", text_tensor("{}"));
  const Model model = open(file);
  for (const std::string name : {"norm.weight_scale", "gone.comfy_quant", "gone.input_scale", "comfy_quant"}) {
    EXPECT_EQ(role(model, name), Role::orphan) << name;
    EXPECT_EQ(model.layer_of(model.source().find(name)), Model::npos);
  }
  EXPECT_EQ(codes(model), (Codes{"orphan-scale", "orphan-scale", "orphan-marker", "orphan-marker", "bad-marker"}));
}

TEST_F(CheckpointModel, EveryTensorHasARoleAndItsLayer) {
  RawFile file = sound_fp8_file();
  file.tensors.emplace_back("a.input_scale", f32_tensor({}, {1}));
  file.tensors.emplace_back("b.pre_quant_scale", f32_tensor({8}, rising(8)));
  const Model model = open(file);
  const std::map<std::string, std::pair<Role, const char*>> expected = {
      {"a.weight", {Role::codes, "a"}},       {"a.weight_scale", {Role::parameter, "a"}},
      {"a.comfy_quant", {Role::marker, "a"}}, {"a.input_scale", {Role::activation, "a"}},
      {"b.weight", {Role::codes, "b"}},       {"b.weight_scale", {Role::parameter, "b"}},
      {"b.comfy_quant", {Role::marker, "b"}}, {"b.pre_quant_scale", {Role::activation, "b"}},
      {"a.bias", {Role::plain, nullptr}},     {"norm.weight", {Role::plain, nullptr}},
  };
  ASSERT_EQ(expected.size(), model.source().tensors().size());
  for (const auto& [name, what] : expected) {
    EXPECT_EQ(role(model, name), what.first) << name;
    const size_t layer = model.layer_of(model.source().find(name));
    EXPECT_EQ(layer == Model::npos ? "" : model.layers()[layer].name, what.second ? what.second : "") << name;
  }
  EXPECT_EQ(name_of(model, *find(model, "a")->input_scale), "a.input_scale");
  EXPECT_EQ(name_of(model, *find(model, "b")->pre_quant_scale), "b.pre_quant_scale");
}

TEST_F(CheckpointModel, WeightWithoutALayerNameIsNoLayer) {
  RawFile file;
  file.tensors.emplace_back("weight", codes_tensor("F8_E4M3", {4, 8}));
  file.tensors.emplace_back("weight_scale", f32_tensor({}, {0.5f}));
  const Model model = open(file);
  EXPECT_TRUE(model.layers().empty());
  EXPECT_EQ(role(model, "weight"), Role::plain);
}

TEST_F(CheckpointModel, FilesWithoutQuantizationOrTensors) {
  RawFile plain;
  plain.tensors.emplace_back("a.weight", bf16_tensor({4, 8}));
  plain.tensors.emplace_back("norm.scale", f32_tensor({2}, {1, 2}));
  const Model model = open(plain);
  EXPECT_TRUE(model.layers().empty());
  EXPECT_TRUE(model.findings().empty());
  EXPECT_FALSE(model.has_header_metadata());
  EXPECT_TRUE(open(RawFile{}).layers().empty());
}

}  // namespace
}  // namespace mezzotint::checkpoint
