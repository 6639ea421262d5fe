#include "mezzotint/convert/optimizers/method.h"

#include "convert/conversion.h"

namespace mezzotint::convert {
namespace {

Method method(const std::string& format, int effort, const std::string& optimizer = "") {
  return choose_method(optimizer, effort, layout_of(format, {256, 512}).value(), nullptr);
}

// docs/quality.md, "Scales that clip": searched scales are for blocks of few bits, and for rows that feedback follows.
TEST(Method, SearchesScalesAtEffortOneWhereTheModelGains) {
  EXPECT_EQ(method("nvfp4", 1).label, "search");
  EXPECT_EQ(method("convrot_w4a4", 1).label, "plain");
  EXPECT_EQ(method("convrot_w4a4", 1).effort, 0);
  EXPECT_EQ(method("int8_row", 1).label, "plain");
  EXPECT_EQ(method("float8_e4m3fn", 1).label, "plain");
  for (const std::string format : {"nvfp4", "convrot_w4a4"}) {
    EXPECT_EQ(method(format, 2).effort, 2) << "with feedback they are worth it";
    EXPECT_TRUE(method(format, 2).objective.has_value());
    EXPECT_EQ(method(format, 0).label, "plain");
  }
  EXPECT_EQ(method("convrot_w4a4", 1, "search").label, "search") << "who asks for it gets it";
  EXPECT_GT(method("convrot_w4a4", 1, "search").effort, 0);
}

}  // namespace
}  // namespace mezzotint::convert
