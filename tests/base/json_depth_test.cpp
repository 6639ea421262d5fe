#include "mezzotint/base/json_depth.h"

#include <gtest/gtest.h>

#include <string>

namespace mezzotint {
namespace {

std::string nested(size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

TEST(JsonDepth, CountsBracketsOutsideOfStrings) {
  EXPECT_FALSE(json_too_deep(nested(kMaxForeignJsonDepth)));
  EXPECT_TRUE(json_too_deep(nested(kMaxForeignJsonDepth + 1)));
  EXPECT_TRUE(json_too_deep(std::string(kMaxForeignJsonDepth + 1, '{')));
  EXPECT_FALSE(json_too_deep('"' + std::string(1000, '[') + '"'));
  EXPECT_FALSE(json_too_deep(R"("\")" + std::string(1000, '[') + '"'));
  EXPECT_TRUE(json_too_deep(R"("\\")" + std::string(1000, '[')));
  EXPECT_FALSE(json_too_deep(std::string(1000, ']')));
  EXPECT_FALSE(json_too_deep(""));
  EXPECT_FALSE(json_too_deep("\"\\"));
  std::string flat;
  for (int i = 0; i < 1000; ++i) flat += "[]{}";
  EXPECT_FALSE(json_too_deep(flat));
}

}  // namespace
}  // namespace mezzotint
