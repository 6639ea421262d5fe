#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>

#include "mezzotint/base/error.h"

namespace mezzotint::test {

/// A folder of its own for a test, removed with everything in it.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "mezzotint-io-XXXXXX").string();
    if (!mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp failed");
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void put_file(const std::filesystem::path& path, std::string_view content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

inline std::string get_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// The length bytes, written out by hand, then the header, then the data.
inline std::string safetensors(std::string_view json, std::string_view data = {}) {
  std::string out;
  for (size_t i = 0, n = json.size(); i < 8; ++i, n >>= 8) out += static_cast<char>(n & 0xff);
  return out.append(json).append(data);
}

/// Runs `action`, which must throw an Error with this name; returns what it says.
inline ErrorInfo expect_error(std::string_view name, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), name) << error.what();
    return error.info();
  }
  ADD_FAILURE() << "expected the error '" << name << "', got none";
  return {};
}

}  // namespace mezzotint::test
