#include "mezzotint/tensor/files.h"

#include <gmock/gmock.h>
#include <torch/types.h>

#include "mezzotint/base/error.h"
#include "support/checkpoint_file.h"
#include "tensor/tensor_case.h"

namespace mezzotint::tensor {
namespace {

TEST(TensorFiles, GiveBackWhatWasWritten) {
  const test::TemporaryFolder folder;
  const std::map<std::string, at::Tensor> tensors = {{"a", test::some_weight(3, 5).t()},
                                                     {"b", torch::arange(4, at::kLong)},
                                                     {"c", torch::empty({0, 2})},
                                                     {"d", torch::tensor(1.5)}};
  write_tensors(folder / "t.safetensors", tensors);
  const auto read = read_tensors(folder / "t.safetensors");
  ASSERT_EQ(read.size(), tensors.size());
  const auto file = io::Source::open(folder / "t.safetensors");
  for (const auto& [name, tensor] : tensors) {
    SCOPED_TRACE(name);
    EXPECT_EQ(read.at(name).scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(read.at(name).equal(tensor));
    EXPECT_TRUE(read_tensor(file, file.find(name), true).equal(tensor)) << "mapped";
  }
  EXPECT_THROW(write_tensors(folder / "t.safetensors", tensors), Error) << "it exists";
  EXPECT_NO_THROW(write_tensors(folder / "t.safetensors", tensors, true));
}

TEST(TensorFiles, LeaveNothingOfAFileThatCannotBeWritten) {
  const test::TemporaryFolder folder;
  const at::Tensor plain = test::some_weight(3, 5), valueless = plain.to(at::kMeta);
  EXPECT_ANY_THROW(write_tensors(folder / "t.safetensors", {{"a", plain}, {"b", valueless}}));
  EXPECT_ANY_THROW(write_tensors(folder / "t.safetensors", {{"a", from_float(test::some_weight(), "int8_row")}}));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace mezzotint::tensor
