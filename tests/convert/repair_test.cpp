#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/convert/edit.h"
#include "support/checkpoint_file.h"

namespace mezzotint::convert {
namespace {

using nlohmann::json;
using test::f32_tensor;
using test::RawFile;
using test::sound_fp8_file;
using test::text_tensor;

class Repair : public testing::Test {
 protected:
  std::vector<std::string> run(const RawFile& file) {
    test::write_raw(folder_ / "in.safetensors", file);
    const auto model = checkpoint::Model::open(folder_ / "in.safetensors");
    return repair(model, folder_ / "out.safetensors", {});
  }
  // Repairs, checks that the result is sound and needs nothing more, and returns it.
  RawFile mend(const RawFile& file) {
    EXPECT_FALSE(run(file).empty());
    const auto model = checkpoint::Model::open(folder_ / "out.safetensors");
    for (const auto& finding : checkpoint::verify(model))
      EXPECT_NE(finding.severity, checkpoint::Severity::error) << finding.subject << ": " << finding.message;
    EXPECT_TRUE(repair(model, folder_ / "again.safetensors", {}).empty());
    EXPECT_FALSE(std::filesystem::exists(folder_ / "again.safetensors"));
    return test::read_raw(folder_ / "out.safetensors");
  }
  static void expect_equal(const RawFile& a, const RawFile& b) {
    EXPECT_EQ(a.tensors.size(), b.tensors.size());
    for (const auto& [name, tensor] : a.tensors) {
      ASSERT_NE(b.find(name), nullptr) << name;
      EXPECT_EQ(*b.find(name), tensor) << name;
    }
    EXPECT_EQ(json::parse(a.metadata.at("_quantization_metadata")),
              json::parse(b.metadata.at("_quantization_metadata")));
  }
  test::TemporaryFolder folder_;
};

TEST_F(Repair, SoundFileIsLeftAlone) {
  EXPECT_TRUE(run(sound_fp8_file()).empty());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors"));
}

TEST_F(Repair, MissingMarkersComeBack) {
  RawFile file = sound_fp8_file();
  std::erase_if(file.tensors, [](const auto& entry) { return entry.first.ends_with("comfy_quant"); });
  file.metadata.erase("_quantization_metadata");
  const RawFile after = mend(file);
  expect_equal(after, sound_fp8_file());
  EXPECT_EQ(after.metadata.at("title"), "sound");
}

TEST_F(Repair, OneFormOfMarkersIsCompletedByTheOther) {
  RawFile header_only = sound_fp8_file();
  std::erase_if(header_only.tensors, [](const auto& entry) { return entry.first.ends_with("comfy_quant"); });
  expect_equal(mend(header_only), sound_fp8_file());
  std::filesystem::remove(folder_ / "out.safetensors");
  RawFile tensors_only = sound_fp8_file();
  tensors_only.metadata.erase("_quantization_metadata");
  expect_equal(mend(tensors_only), sound_fp8_file());
}

TEST_F(Repair, LegacyNamesAndMarker) {
  RawFile file = sound_fp8_file();
  file.metadata.erase("_quantization_metadata");
  std::erase_if(file.tensors, [](const auto& entry) { return entry.first.ends_with("comfy_quant"); });
  for (auto& [name, tensor] : file.tensors)
    if (name.ends_with("weight_scale")) name = name.substr(0, 1) + ".scale_weight";
  file.tensors.emplace_back("a.scale_input", f32_tensor({}, {0.125f}));
  file.tensors.emplace_back("scaled_fp8", test::RawTensor{"F8_E4M3", {0}, ""});
  RawFile wanted = sound_fp8_file();
  wanted.tensors.emplace_back("a.input_scale", f32_tensor({}, {0.125f}));
  expect_equal(mend(file), wanted);
}

TEST_F(Repair, OldBareHeaderIsWrittenAnew) {
  RawFile file = sound_fp8_file();
  file.metadata["_quantization_metadata"] =
      R"({"format_version": "1.0", "layers": {"a": "float8_e4m3fn", "b": "float8_e4m3fn"}})";
  expect_equal(mend(file), sound_fp8_file());
}

TEST_F(Repair, ScalesOfOtherDtypesAndShapes) {
  RawFile file = sound_fp8_file();
  file.at("a.weight_scale") = {"BF16", {1}, std::string("\x00\x3f", 2)};
  file.tensors.emplace_back("b.input_scale", test::RawTensor{"F16", {}, std::string("\x00\x38", 2)});
  RawFile wanted = sound_fp8_file();
  wanted.tensors.emplace_back("b.input_scale", f32_tensor({}, {0.5f}));
  expect_equal(mend(file), wanted);
}

TEST_F(Repair, OrphansAreLeftOut) {
  RawFile file = sound_fp8_file();
  file.tensors.emplace_back("z.weight_scale", f32_tensor({}, {1}));
  file.tensors.emplace_back("z.comfy_quant", text_tensor(R"({"format": "float8_e4m3fn"})"));
  expect_equal(mend(file), sound_fp8_file());
}

TEST_F(Repair, OtherFieldsOfAMarkerStay) {
  RawFile file = sound_fp8_file();
  file.metadata.erase("_quantization_metadata");
  file.at("a.comfy_quant") = text_tensor(R"({"format": "float8_e4m3fn", "orig_dtype": "torch.bfloat16"})");
  const RawFile after = mend(file);
  EXPECT_EQ(*after.find("a.comfy_quant"), *file.find("a.comfy_quant"));
  EXPECT_EQ(json::parse(after.metadata.at("_quantization_metadata")).at("layers").at("a").at("orig_dtype"),
            "torch.bfloat16");
}

TEST_F(Repair, RefusesWhatNobodyCanMend) {
  RawFile file = sound_fp8_file();
  file.at("a.weight_scale") = f32_tensor({}, {std::numeric_limits<float>::infinity()});
  EXPECT_THROW(run(file), Error);
  RawFile missing = sound_fp8_file();
  std::erase_if(missing.tensors, [](const auto& entry) { return entry.first == "a.weight_scale"; });
  EXPECT_THROW(run(missing), Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors"));
}

}  // namespace
}  // namespace mezzotint::convert
