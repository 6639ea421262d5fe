#include "mezzotint/convert/edit.h"

#include "mezzotint/base/error.h"
#include "support/checkpoint_file.h"

namespace mezzotint::convert {
namespace {

using nlohmann::json;
using test::f32_tensor;
using test::RawFile;
using test::sound_fp8_file;

class Edit : public testing::Test {
 protected:
  RawFile run(const RawFile& file, const EditOptions& edits, bool repair_instead = false) {
    test::write_raw(folder_ / "in.safetensors", file);
    const auto model = checkpoint::Model::open(folder_ / "in.safetensors");
    ExecuteOptions options;
    options.overwrite = true;
    changes_ = repair_instead ? repair(model, folder_ / "out.safetensors", options)
                              : edit(model, folder_ / "out.safetensors", edits, options);
    return test::read_raw(folder_ / "out.safetensors");
  }
  std::string error(const RawFile& file, const EditOptions& edits) {
    try {
      run(file, edits);
    } catch (const Error& e) {
      EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors"));
      EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors.partial"));
      return std::string(e.name());
    }
    return "none";
  }
  static json layers(const RawFile& file) {
    return json::parse(file.metadata.at("_quantization_metadata")).at("layers");
  }
  test::TemporaryFolder folder_;
  std::vector<std::string> changes_;
};

TEST_F(Edit, MetadataAloneLeavesEveryTensor) {
  const RawFile before = sound_fp8_file();
  const RawFile after = run(before, {.set_metadata = {{"author", "me"}, {"title", "new"}}});
  EXPECT_EQ(after.tensors.size(), before.tensors.size());
  for (const auto& [name, tensor] : before.tensors) EXPECT_EQ(*after.find(name), tensor) << name;
  EXPECT_EQ(after.metadata.at("title"), "new");
  EXPECT_EQ(after.metadata.at("author"), "me");
  EXPECT_EQ(after.metadata.at("_quantization_metadata"), before.metadata.at("_quantization_metadata"));
  EXPECT_EQ(changes_.size(), 2u);
}

TEST_F(Edit, RemovingAWeightTakesItsLayerAlong) {
  const RawFile after = run(sound_fp8_file(), {.remove_tensors = {"^a\\.weight$"}});
  EXPECT_EQ(after.find("a.weight"), nullptr);
  EXPECT_EQ(after.find("a.weight_scale"), nullptr);
  EXPECT_EQ(after.find("a.comfy_quant"), nullptr);
  EXPECT_NE(after.find("a.bias"), nullptr) << "a bias is nobody's parameter";
  EXPECT_FALSE(layers(after).contains("a"));
  EXPECT_TRUE(layers(after).contains("b"));
}

TEST_F(Edit, RemovingAMarkerForgetsItInTheHeaderToo) {
  const RawFile after = run(sound_fp8_file(), {.remove_tensors = {"^a\\.comfy_quant$"}});
  EXPECT_EQ(after.find("a.comfy_quant"), nullptr);
  EXPECT_FALSE(layers(after).contains("a"));
}

TEST_F(Edit, RenamingAWeightRenamesItsLayer) {
  const RawFile before = sound_fp8_file();
  const RawFile after = run(before, {.rename_tensors = {{"^([ab])\\.weight$", "model.$1.weight"}}});
  EXPECT_EQ(*after.find("model.a.weight"), *before.find("a.weight"));
  EXPECT_NE(after.find("model.a.weight_scale"), nullptr);
  EXPECT_NE(after.find("model.b.comfy_quant"), nullptr);
  EXPECT_NE(after.find("a.bias"), nullptr);
  EXPECT_EQ(layers(after).size(), 2u);
  EXPECT_TRUE(layers(after).contains("model.b"));
}

TEST_F(Edit, FieldsChangeInBothForms) {
  const RawFile after = run(sound_fp8_file(), {.layers = "^a$",
                                               .set_fields = {{"full_precision_matrix_mult", "true"}, {"note", "x y"}},
                                               .remove_fields = {"absent"}});
  const json marker = json::parse(after.find("a.comfy_quant")->bytes);
  EXPECT_EQ(marker, (json{{"format", "float8_e4m3fn"}, {"full_precision_matrix_mult", true}, {"note", "x y"}}));
  EXPECT_TRUE(after.find("a.comfy_quant")->bytes.starts_with(R"({"format": "float8_e4m3fn", )"));
  EXPECT_EQ(layers(after).at("a"), marker);
  EXPECT_EQ(layers(after).at("b"), (json{{"format", "float8_e4m3fn"}}));
}

TEST_F(Edit, FieldsOfAHeaderOnlyLayerGetATensor) {
  RawFile file = sound_fp8_file();
  std::erase_if(file.tensors, [](const auto& entry) { return entry.first.ends_with("comfy_quant"); });
  const RawFile after = run(file, {.layers = "^b$", .set_fields = {{"note", "1"}}});
  EXPECT_EQ(json::parse(after.find("b.comfy_quant")->bytes).at("note"), 1);
  EXPECT_EQ(after.find("a.comfy_quant"), nullptr);
}

TEST_F(Edit, RemovingTheHeaderKeepsEveryMarker) {
  RawFile file = sound_fp8_file();
  std::erase_if(file.tensors, [](const auto& entry) { return entry.first == "a.comfy_quant"; });
  const RawFile after = run(file, {.remove_metadata = {"_quantization_metadata"}});
  EXPECT_EQ(after.metadata.count("_quantization_metadata"), 0u);
  EXPECT_EQ(json::parse(after.find("a.comfy_quant")->bytes).at("format"), "float8_e4m3fn");
}

TEST_F(Edit, LayersOfUnknownFormatKeepTheirMarkers) {
  RawFile file = sound_fp8_file();
  file.tensors.emplace_back("f.weight", f32_tensor({2, 2}, {1, 2, 3, 4}));
  file.tensors.emplace_back("f.comfy_quant", test::text_tensor(R"({"format": "of_tomorrow"})"));
  json header = json::parse(file.metadata["_quantization_metadata"]);
  header["layers"]["f"] = {{"format", "of_tomorrow"}};
  file.metadata["_quantization_metadata"] = header.dump();
  const RawFile after = run(file, {.layers = "^a$", .set_fields = {{"note", "1"}}});
  EXPECT_EQ(layers(after).at("f"), (json{{"format", "of_tomorrow"}}));
  EXPECT_EQ(*after.find("f.comfy_quant"), *file.find("f.comfy_quant"));
}

TEST_F(Edit, AddingAFileBringsItsMarkers) {
  RawFile extra;
  extra.tensors.emplace_back("c.weight", *sound_fp8_file().find("a.weight"));
  extra.tensors.emplace_back("c.weight_scale", *sound_fp8_file().find("a.weight_scale"));
  extra.tensors.emplace_back("c.comfy_quant", *sound_fp8_file().find("a.comfy_quant"));
  test::write_raw(folder_ / "extra.safetensors", extra);
  const RawFile after = run(sound_fp8_file(), {.add_tensors_from = {folder_ / "extra.safetensors"}});
  EXPECT_EQ(*after.find("c.weight"), *extra.find("c.weight"));
  EXPECT_EQ(layers(after).size(), 3u);
}

TEST_F(Edit, Refusals) {
  const RawFile file = sound_fp8_file();
  EXPECT_EQ(error(file, {}), "nothing-to-edit");
  EXPECT_EQ(error(file, {.remove_tensors = {"nothing"}}), "nothing-matches");
  EXPECT_EQ(error(file, {.rename_tensors = {{"nothing", "x"}}}), "nothing-matches");
  EXPECT_EQ(error(file, {.remove_metadata = {"nothing"}}), "nothing-matches");
  EXPECT_EQ(error(file, {.layers = "nothing", .remove_fields = {"x"}}), "nothing-matches");
  EXPECT_EQ(error(file, {.remove_tensors = {"weight_scale$"}}), "edit-breaks-layer");
  EXPECT_EQ(error(file, {.rename_tensors = {{"\\.weight$", ".kernel"}}}), "edit-breaks-layer");
  EXPECT_EQ(error(file, {.rename_tensors = {{"^[ab]\\.", "c."}}}), "duplicate-tensor");
  EXPECT_EQ(error(file, {.remove_fields = {"format"}}), "bad-field");
  EXPECT_EQ(error(file, {.set_fields = {{"format", "8"}}}), "bad-field");
  EXPECT_EQ(error(file, {.set_metadata = {{"_quantization_metadata", "{}"}}}), "reserved-metadata");
  EXPECT_EQ(error(file, {.remove_tensors = {"("}}), "bad-regex");
  RawFile unmarked = file;
  std::erase_if(unmarked.tensors, [](const auto& entry) { return entry.first.ends_with("comfy_quant"); });
  unmarked.metadata.clear();
  EXPECT_EQ(error(unmarked, {.set_fields = {{"note", "1"}}}), "no-marker");
}

TEST_F(Edit, InputIsNeverTheOutput) {
  test::write_raw(folder_ / "in.safetensors", sound_fp8_file());
  std::filesystem::create_hard_link(folder_ / "in.safetensors", folder_ / "link.safetensors");
  const auto model = checkpoint::Model::open(folder_ / "in.safetensors");
  ExecuteOptions options;
  options.overwrite = true;
  for (const char* name : {"in.safetensors", "link.safetensors"})
    EXPECT_THROW(edit(model, folder_ / name, {.set_metadata = {{"a", "b"}}}, options), Error);
  EXPECT_EQ(test::read_raw(folder_ / "in.safetensors").tensors, sound_fp8_file().tensors);
}

TEST_F(Edit, CancelLeavesNothing) {
  test::write_raw(folder_ / "in.safetensors", sound_fp8_file());
  const auto model = checkpoint::Model::open(folder_ / "in.safetensors");
  const std::atomic<bool> cancel{true};
  ExecuteOptions options;
  options.cancel = &cancel;
  EXPECT_THROW(edit(model, folder_ / "out.safetensors", {.set_metadata = {{"a", "b"}}}, options), Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors.partial"));
}

}  // namespace
}  // namespace mezzotint::convert
