#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/model_files.h"
#include "mezzotint/checkpoint/weight_values.h"

// Legacy files with a scale per row or per block, as musubi-tuner writes them: a tensor `scaled_fp8`, no markers, and
// `scale_weight` [N, 1] or [N, K / b, 1] in the model's own dtype.
namespace mezzotint::checkpoint {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;

using LegacyBlocks = ModelFile;

RawFile legacy(RawTensor scale) {
  RawFile file;
  file.tensors.emplace_back("scaled_fp8", RawTensor{"F8_E4M3", {0}, ""});
  file.tensors.emplace_back("a.weight", RawTensor{"F8_E4M3", {2, 4}, std::string(8, '\x38')});  // ones
  file.tensors.emplace_back("a.scale_weight", std::move(scale));
  return file;
}

std::vector<float> values(const Model& model, const Layer& layer) {
  const WeightValues reader(model, layer);
  std::vector<float> out(reader.elements());
  std::vector<std::byte> bytes;
  reader.read(0, out.size(), out.data(), bytes);
  return out;
}

TEST_F(LegacyBlocks, GroupsOfColumns) {
  const Model model = open(legacy(f32_tensor({2, 2, 1}, {1, 2, 3, 4})));
  EXPECT_EQ(only(model).dialect, Dialect::scaled_fp8);
  EXPECT_EQ(only(model).layout.format->name, "float8_e4m3fn_block3d");
  EXPECT_EQ(only(model).layout.block_cols, 2);
  EXPECT_TRUE(only(model).consistent);
  EXPECT_EQ(codes(model, true), Codes{});
  EXPECT_EQ(values(model, only(model)), (std::vector<float>{1, 1, 2, 2, 3, 3, 4, 4}));
}

TEST_F(LegacyBlocks, RowsInBf16) {
  const Model model = open(legacy({"BF16", {2, 1}, test::raw_bytes(std::vector<uint16_t>{0x3f80, 0x4000})}));
  EXPECT_EQ(only(model).layout.format->name, "float8_e4m3fn_rowwise");
  EXPECT_EQ(codes(model, true), Codes{});
  EXPECT_EQ(values(model, only(model)), (std::vector<float>{1, 1, 1, 1, 2, 2, 2, 2}));
}

TEST_F(LegacyBlocks, ScalesThatDoNotDivideTheWeight) {
  const Model model = open(legacy(f32_tensor({2, 3, 1}, {1, 2, 3, 4, 5, 6})));
  EXPECT_TRUE(model.layers().empty());
  EXPECT_EQ(codes(model), Codes{"orphan-scale"});
}

}  // namespace
}  // namespace mezzotint::checkpoint
