#include "mezzotint/checkpoint/verify.h"

#include <cmath>
#include <limits>
#include <set>

#include "mezzotint/checkpoint/weight_values.h"
#include "support/checkpoint_file.h"

namespace mezzotint::checkpoint {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;
using test::sound_fp8_file;
using test::text_tensor;

class Verify : public testing::Test {
 protected:
  Model open(const RawFile& file) {
    test::write_raw(folder_ / "m.safetensors", file);
    return Model::open(folder_ / "m.safetensors");
  }
  std::multiset<std::string> codes(const RawFile& file, Severity severity, const VerifyOptions& options = {}) {
    std::multiset<std::string> result;
    for (const Finding& finding : verify(open(file), options)) {
      EXPECT_FALSE(finding.message.empty());
      if (finding.severity == severity) result.emplace(finding.code);
    }
    return result;
  }
  std::multiset<std::string> errors(const RawFile& file) { return codes(file, Severity::error); }
  using Codes = std::multiset<std::string>;
  test::TemporaryFolder folder_;
};

TEST_F(Verify, SoundFileHasNoErrorAndSaysItsBits) {
  EXPECT_EQ(errors(sound_fp8_file()), Codes{});
  EXPECT_EQ(codes(sound_fp8_file(), Severity::warning), Codes{});
  EXPECT_EQ(codes(sound_fp8_file(), Severity::note), Codes{"bits-per-weight"});
  for (const Finding& finding : verify(open(sound_fp8_file())))
    EXPECT_NE(finding.message.find("9.000 bits"), std::string::npos) << finding.message;  // 8 + 32 bits of scale / 32
}

TEST_F(Verify, NonFiniteScales) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    RawFile file = sound_fp8_file();
    file.at("b.weight_scale") = f32_tensor({}, {bad});
    EXPECT_TRUE(errors(file).count("non-finite-scale") == 1);
  }
}

TEST_F(Verify, ScalesOfTheWrongDtypeOrShape) {
  RawFile shape = sound_fp8_file();
  shape.at("a.weight_scale") = f32_tensor({3}, {1, 2, 3});
  EXPECT_FALSE(errors(shape).empty());
  RawFile missing = sound_fp8_file();
  std::erase_if(missing.tensors, [](const auto& entry) { return entry.first == "a.weight_scale"; });
  EXPECT_FALSE(errors(missing).empty());
}

TEST_F(Verify, NonFiniteCodesAreFoundByReading) {
  RawFile file = sound_fp8_file();
  file.at("a.weight").bytes[31] = '\x7f';  // NaN in e4m3fn
  EXPECT_EQ(errors(file), Codes{"non-finite-weight"});
  EXPECT_EQ(codes(file, Severity::error, {.codes = false}), Codes{});
}

TEST_F(Verify, NonFinitePlainTensorsAreTheSourcesOwn) {
  RawFile file = sound_fp8_file();
  file.at("norm.weight") = f32_tensor({3}, {1, NAN, 1});
  EXPECT_EQ(errors(file), Codes{});
  EXPECT_EQ(codes(file, Severity::warning), Codes{"non-finite-weight"});
}

TEST_F(Verify, OrphansMarkersAndDisagreement) {
  RawFile orphan = sound_fp8_file();
  orphan.tensors.emplace_back("nowhere.weight_scale", f32_tensor({}, {1}));
  EXPECT_EQ(errors(orphan), Codes{"orphan-scale"});
  RawFile unmarked = sound_fp8_file();
  std::erase_if(unmarked.tensors, [](const auto& entry) { return entry.first.ends_with("comfy_quant"); });
  unmarked.metadata.clear();
  EXPECT_EQ(errors(unmarked), (Codes{"missing-marker", "missing-marker"}));
  RawFile disagree = sound_fp8_file();
  disagree.at("a.comfy_quant") = text_tensor(R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": true})");
  EXPECT_EQ(errors(disagree), Codes{"markers-disagree"});
  RawFile unknown = sound_fp8_file();
  unknown.at("a.comfy_quant") = text_tensor(R"({"format": "no_such_format"})");
  unknown.metadata.erase("_quantization_metadata");
  EXPECT_EQ(errors(unknown).count("unknown-format"), 1u);
}

TEST_F(Verify, ActivationScales) {
  const auto with = [](RawTensor scale) {
    RawFile file = sound_fp8_file();
    file.tensors.emplace_back("a.input_scale", std::move(scale));
    return file;
  };
  EXPECT_EQ(errors(with(f32_tensor({}, {0.25f}))), Codes{});
  EXPECT_EQ(errors(with({"BF16", {}, std::string("\x80\x3f", 2)})), Codes{"input-scale-dtype"});
  EXPECT_EQ(errors(with(f32_tensor({2}, {1, 1}))), Codes{"input-scale-shape"});
  EXPECT_EQ(errors(with(f32_tensor({}, {0}))), Codes{"scale-not-positive"});
  EXPECT_EQ(errors(with(f32_tensor({}, {INFINITY}))), Codes{"non-finite-scale"});
}

TEST_F(Verify, ProgressReachesTheTotal) {
  uint64_t last = 0, total = 0;
  verify(open(sound_fp8_file()), {.threads = 2, .progress = [&](uint64_t done, uint64_t all) {
                                    EXPECT_GE(done, last);
                                    last = done;
                                    total = all;
                                  }});
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, 32u + 32 + 16 + 12);
}

TEST_F(Verify, RunsCoverEveryElementOnce) {
  RawFile file;
  file.tensors.emplace_back("x", f32_tensor({7, 3}, std::vector<float>(21, 2.0f)));
  const Model model = open(file);
  const WeightValues values(model, 0);
  uint64_t next = 0;
  for (const checkpoint::Run& run : cut_runs(values, nullptr, 4)) {
    EXPECT_EQ(run.first, next);
    next += run.count;
    EXPECT_LE(run.count, 4u);
  }
  EXPECT_EQ(next, 21u);
}

}  // namespace
}  // namespace mezzotint::checkpoint
