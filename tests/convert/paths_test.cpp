#include "mezzotint/convert/paths.h"

#include <algorithm>

#include "mezzotint/base/error.h"
#include "support/checkpoint_file.h"

namespace mezzotint::convert {
namespace {

TEST(Paths, DefaultNames) {
  EXPECT_EQ(default_output("m.safetensors", "x"), "m_x.safetensors");
  EXPECT_EQ(default_output("a/m_bf16.safetensors", "x"), "a/m_x.safetensors");
  EXPECT_EQ(default_output("a/m.safetensors.index.json", "x"), "a/m_x.safetensors");
  EXPECT_EQ(default_output("a/folder/", "x"), "a/folder_x.safetensors");
  EXPECT_EQ(default_output("a/folder", "x"), "a/folder_x.safetensors");
  EXPECT_EQ(default_output("bf16.safetensors", "x"), "bf16_x.safetensors");
}

TEST(Paths, LabelsFollowPublishedFiles) {
  EXPECT_EQ(file_label(formats::select_format("fp8")), "fp8_e4m3fn_scaled");
  EXPECT_EQ(file_label(formats::select_format("bf16")), "bf16");
  EXPECT_EQ(file_label(formats::select_format("int8_blockwise:block_size=64")), "int8_blockwise_block_size64");
}

TEST(Paths, OutputsGoWhereTheyAreSent) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(choose_output("a/m.safetensors", "", "x", true), "a/m_x.safetensors");
  EXPECT_EQ(choose_output("a/m.safetensors", "o.safetensors", "x", false), "o.safetensors");
  EXPECT_EQ(choose_output("a/m.safetensors", folder.path(), "x", true), folder / "m_x.safetensors");
  EXPECT_EQ(choose_output("a/m.safetensors", "new/", "x", true), "new/m_x.safetensors");
  EXPECT_THROW(choose_output("a/m.safetensors", "o.safetensors", "x", true), Error);
}

TEST(Paths, AFolderOfModelsIsSeveralInputs) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(expand_inputs({"nowhere.safetensors"}).size(), 1u) << "opening it will say that it is not there";
  test::write_raw(folder / "b.safetensors", test::sound_fp8_file());
  EXPECT_EQ(expand_inputs({folder.path()}), std::vector{folder.path()}) << "one file in a folder is one model";
  test::write_raw(folder / "a.safetensors", test::sound_fp8_file());
  EXPECT_EQ(expand_inputs({folder.path()}), (std::vector{folder / "a.safetensors", folder / "b.safetensors"}));
  test::write_raw(folder / "c-00001-of-00002.safetensors", test::sound_fp8_file());
  EXPECT_THROW(expand_inputs({folder.path()}), Error);
}

}  // namespace
}  // namespace mezzotint::convert
