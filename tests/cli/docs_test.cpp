#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "mezzotint/io/header.h"

namespace mezzotint::cli {
namespace {

TEST(Docs, EveryHeaderErrorIsListedWithItsMeaning) {
  std::ifstream file(MEZZOTINT_SOURCE_DIR "/docs/cli.md");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const auto& error : io::all_header_errors()) {
    const std::string line = "| `" + std::string(error.name) + "` | " + std::string(error.meaning) + " |";
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace mezzotint::cli
