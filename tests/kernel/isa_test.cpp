#include "mezzotint/kernel/isa.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

namespace mezzotint::kernel::test {
namespace {

/// What MEZZOTINT_ISA asks for: the highest level at most its value that the machine has.
Isa forced() {
  const char* text = std::getenv("MEZZOTINT_ISA");
  Isa best = Isa::scalar;
  for (const IsaFacts& facts : all_isas()) {
    if (machine_has(facts.isa)) best = std::max(best, facts.isa);
    if (text != nullptr && facts.name == text) break;
  }
  return best;
}

TEST(Isa, TheForcedLevelIsTheOneThatRuns) {
  EXPECT_EQ(active_isa(), forced());
  EXPECT_EQ(compiled_isa(), forced());
}

TEST(Isa, AScopedCapIsTheOneThatRuns) {
  std::set<Isa> seen;
  for (const IsaFacts& facts : all_isas()) {
    const ScopedIsaCap cap(facts.isa);
    if (enabled(facts.isa)) {
      EXPECT_EQ(compiled_isa(), facts.isa);
    }
    EXPECT_EQ(compiled_isa(), active_isa());
    EXPECT_LE(compiled_isa(), facts.isa);
    seen.insert(compiled_isa());
    {
      const ScopedIsaCap inner(Isa::scalar);
      EXPECT_EQ(compiled_isa(), Isa::scalar);
    }
    EXPECT_EQ(compiled_isa(), std::min(facts.isa, compiled_isa()));
  }
  EXPECT_TRUE(seen.contains(Isa::scalar));
  EXPECT_EQ(compiled_isa(), forced());  // restored
}

TEST(Isa, NamesRoundTrip) {
  for (const IsaFacts& facts : all_isas()) {
    EXPECT_EQ(isa_from_name(facts.name), facts.isa);
    EXPECT_EQ(name(facts.isa), facts.name);
  }
  EXPECT_FALSE(isa_from_name("avx1024").has_value());
  EXPECT_TRUE(machine_has(Isa::scalar));
}

}  // namespace
}  // namespace mezzotint::kernel::test
