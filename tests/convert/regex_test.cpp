#include "mezzotint/convert/regex.h"

#include <gmock/gmock.h>

#include <chrono>
#include <thread>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {
namespace {

using testing::HasSubstr;

/// Name of the Error that `call` throws, or "".
template <class Call>
std::string error_name(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(error.name());
  }
  return "";
}

TEST(Regex, SearchesAnywhereAndMatchesWhole) {
  const Regex regex(R"(blocks\.\d+\.ffn)");
  EXPECT_TRUE(regex.search("blocks.12.ffn.0"));
  EXPECT_TRUE(regex.fullmatch("blocks.12.ffn"));
  EXPECT_FALSE(regex.fullmatch("blocks.12.ffn.0"));
  EXPECT_FALSE(regex.fullmatch("x.blocks.12.ffn"));
  EXPECT_FALSE(regex.search("blocks.x.ffn"));
}

TEST(Regex, FullmatchTriesEveryAlternative) {
  // The first alternative matches a prefix; Python's fullmatch goes on to the second.
  EXPECT_TRUE(Regex("a|ab").fullmatch("ab"));
  EXPECT_TRUE(Regex("a*?").fullmatch("aaa"));
}

TEST(Regex, EmptyPatternAndSubject) {
  EXPECT_TRUE(Regex("").search("x"));
  EXPECT_FALSE(Regex("").fullmatch("x"));
  EXPECT_TRUE(Regex("").fullmatch(""));
  EXPECT_TRUE(Regex(".*").fullmatch(std::string_view()));
}

TEST(Regex, TakesPythonSyntax) {
  EXPECT_TRUE(Regex(R"((?P<n>\d+)\.(?P=n))").search("7.7"));
  EXPECT_FALSE(Regex(R"((?P<n>\d+)\.(?P=n)$)").search("7.8"));
  EXPECT_TRUE(Regex(R"(blocks\.(?!0\.)\d+)").search("blocks.1.q"));
  EXPECT_FALSE(Regex(R"(^blocks\.(?!0\.)\d+)").search("blocks.0.q"));
  EXPECT_TRUE(Regex(R"((?<=attn\.)q$)").search("attn.q"));
  EXPECT_TRUE(Regex("(?i)ADALN").search("adaLN_modulation"));
}

TEST(Regex, BadPatternsNameThePosition) {
  try {
    Regex("blocks.(0");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "bad-regex");
    EXPECT_THAT(error.what(), HasSubstr("at position 9"));
    EXPECT_THAT(error.what(), HasSubstr("blocks.(0"));
  }
  for (const char* pattern : {"[a", "a{2,1}", "(?P<x>a)(?P<x>b)", "*", "(?<n", "\\", "\xff"}) {
    EXPECT_EQ(error_name([&] { Regex regex(pattern); }), "bad-regex") << pattern;
  }
  EXPECT_EQ(error_name([] { Regex regex(std::string(100'000, 'a')); }), "bad-regex");
  EXPECT_EQ(error_name([] { Regex regex(std::string(5'000, '(')); }), "bad-regex");
}

TEST(Regex, HostilePatternsEndInAnError) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(error_name([] { Regex("(a+)+$").search(std::string(200, 'a') + "!"); }), "regex-too-slow");
  EXPECT_EQ(error_name([] { Regex("(a|a)*[bc]").fullmatch(std::string(100, 'a')); }), "regex-too-slow");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  // The same pattern on an innocent subject works.
  EXPECT_TRUE(Regex("(a+)+$").search("aaa"));
}

TEST(Regex, LongSubjectsMatch) {
  // Deeper than the JIT's machine stack.
  EXPECT_TRUE(Regex("(?:a|b)*c").fullmatch(std::string(20'000, 'a') + "c"));
}

TEST(Regex, Replaces) {
  EXPECT_EQ(Regex(R"(^model\.diffusion_model\.)").replace("model.diffusion_model.x", ""), "x");
  EXPECT_EQ(Regex(R"((\d+)\.(\w))").replace("1.a 2.b", "$2.$1"), "a.1 b.2");
  EXPECT_EQ(Regex("(?P<part>q|k)").replace("q", "to_${part}"), "to_q");
  EXPECT_EQ(Regex("x").replace("abc", "$$"), "abc");
  EXPECT_EQ(Regex("b").replace("abc", "$$"), "a$c");
  EXPECT_EQ(Regex("a").replace(std::string(100, 'a'), std::string(100, 'b')), std::string(10'000, 'b'));
  EXPECT_EQ(error_name([] { Regex("a").replace("a", "$1"); }), "bad-replacement");
  EXPECT_EQ(error_name([] { Regex("a").replace("a", "${x"); }), "bad-replacement");
}

TEST(Regex, IsSharedBetweenThreads) {
  const Regex regex(R"((?:\w+\.)*attn\.(?:q|k|v))");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2'000; ++i) {
        wrong[t] += !regex.fullmatch("blocks." + std::to_string(i) + ".attn.q");
        wrong[t] += regex.fullmatch("blocks." + std::to_string(i) + ".attn.o");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(wrong, testing::Each(0));
}

}  // namespace
}  // namespace mezzotint::convert
