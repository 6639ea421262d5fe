#include <map>
#include <set>

#include "io/io_support.h"
#include "mezzotint/io/reader.h"

/// tests/hostile: the name of a file says what opening it has to answer (see make.py there).
namespace mezzotint::io {
namespace {
namespace fs = std::filesystem;

std::vector<fs::path> hostile_files() {
  std::vector<fs::path> files;
  for (const auto& file : fs::directory_iterator(fs::path(MEZZOTINT_SOURCE_DIR) / "tests/hostile"))
    if (file.path().extension() == ".safetensors") files.push_back(file.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string expected_answer(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.substr(0, name.find('.'));
}

/// "ok", or the name of the error.
std::string answer(const fs::path& path, std::string& message) {
  try {
    const auto source = Source::open(path);
    for (size_t i = 0; i < source.tensors().size(); ++i) {
      // The data of these files counts up from the start of the data buffer, which ends with the file.
      uint64_t data_bytes = 0;
      for (const auto& tensor : source.tensors()) data_bytes += tensor.bytes;
      const uint64_t begin = source.tensors()[i].offset - (fs::file_size(path) - data_bytes);
      const auto bytes = source.read_all(i);
      EXPECT_EQ(bytes.size(), source.tensors()[i].bytes);
      for (size_t k = 0; k < bytes.size(); ++k) EXPECT_EQ(static_cast<uint8_t>(bytes[k]), (begin + k) % 256);
    }
    return "ok";
  } catch (const Error& error) {
    message = error.what();
    return std::string(error.name());
  }
}

TEST(Hostile, EveryFileGetsTheAnswerInItsName) {
  const auto files = hostile_files();
  ASSERT_GT(files.size(), 100u);
  for (const auto& path : files) {
    std::string message;
    EXPECT_EQ(answer(path, message), expected_answer(path)) << path.filename() << "\n" << message;
    if (expected_answer(path) == "ok") continue;
    EXPECT_THAT(message, testing::StartsWith(path.string() + ": "));
    EXPECT_THAT(message, testing::Not(testing::HasSubstr("\x1b"))) << "terminal codes from a file reach the terminal";
  }
}

TEST(Hostile, EveryHeaderErrorHasAFile) {
  std::set<std::string> covered;
  for (const auto& path : hostile_files()) covered.insert(expected_answer(path));
  for (const auto& error : all_header_errors()) EXPECT_TRUE(covered.contains(std::string(error.name))) << error.name;
}

TEST(Hostile, TheNamesOfTheErrorsAreDistinct) {
  std::set<std::string_view> names;
  for (const auto& error : all_header_errors()) {
    EXPECT_TRUE(names.insert(error.name).second) << error.name;
    EXPECT_TRUE(error.meaning.ends_with('.')) << error.name;
  }
}

TEST(Hostile, TruncationAtEveryByteIsNoticed) {
  const test::TempFolder folder;
  const std::string whole = test::safetensors(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
      "0123456789a");
  test::put_file(folder / "whole", whole);
  EXPECT_EQ(Source::open(folder / "whole").tensors().size(), 2u);
  for (size_t size = 0; size < whole.size(); ++size) {
    test::put_file(folder / "cut", whole.substr(0, size));
    std::string message;
    const std::string found = answer(folder / "cut", message);
    const std::string expected = size == 0                  ? "empty-file"
                                 : size < 8                 ? "file-too-short"
                                 : size < whole.size() - 11 ? "header-past-end"
                                                            : "truncated-file";
    EXPECT_EQ(found, expected) << size;
    if (expected == "truncated-file") {
      EXPECT_THAT(message, testing::HasSubstr("expected a file of " + std::to_string(whole.size()) + " bytes"));
      EXPECT_THAT(message, testing::HasSubstr("found " + std::to_string(size) + " bytes"));
      EXPECT_THAT(message, testing::HasSubstr("looks incomplete"));
    }
  }
}

}  // namespace
}  // namespace mezzotint::io
