#include <gtest/gtest.h>

#include <set>

#include "mezzotint/base/philox.h"
#include "mezzotint/base/rounding.h"

namespace mezzotint::test {
namespace {

// Known answers of the authors' Random123 library (kat_vectors, philox 4x32 10).
TEST(Philox, KnownAnswers) {
  struct Answer {
    Philox::Block counter;
    uint32_t key[2];
    uint32_t word[4];
  };
  constexpr Answer answers[] = {
      {{{0, 0, 0, 0}}, {0, 0}, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
      {{{~0u, ~0u, ~0u, ~0u}}, {~0u, ~0u}, {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
      {{{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}},
       {0xA4093822, 0x299F31D0},
       {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
  };
  for (const Answer& a : answers) {
    const Philox::Block block = Philox::generate(a.counter, a.key[0], a.key[1]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(block.word[i], a.word[i]);
  }
  static_assert(Philox::generate({{0, 0, 0, 0}}, 0, 0).word[0] == 0x6627E8D5);
}

TEST(Philox, ElementsTakeTheWordsInOrder) {
  constexpr uint64_t kKey = 0x0123456789ABCDEF;
  for (const uint64_t base : {uint64_t{0}, uint64_t{4} << 32, ~uint64_t{3}}) {
    const Philox::Block block = Philox::generate(
        {{static_cast<uint32_t>(base >> 2), static_cast<uint32_t>(base >> 34), 0, 0}}, 0x89ABCDEF, 0x01234567);
    for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(random_bits(kKey, base + i), block.word[i]);
  }
}

// Computed apart from this code: the keys are part of the promise that a seed gives the same bytes for ever.
TEST(Rounding, KeysAreThoseOfEveryRelease) {
  EXPECT_EQ(Rounding::stochastic(0, "").key, 0x5B21F68FFA77F14Cu);
  EXPECT_EQ(Rounding::stochastic(1, "blocks.0.attn.q.weight").key, 0x7EC5E22A24963F73u);
}

TEST(Rounding, EverySeedAndNameHasItsOwnStream) {
  std::set<uint64_t> keys;
  size_t count = 0;
  for (uint64_t seed = 0; seed < 100; ++seed)
    for (int layer = 0; layer < 100; ++layer, ++count)
      keys.insert(Rounding::stochastic(seed, "blocks." + std::to_string(layer) + ".weight").key);
  EXPECT_EQ(keys.size(), count);
  EXPECT_EQ(Rounding::nearest().mode, Rounding::Mode::nearest_even);
}

}  // namespace
}  // namespace mezzotint::test
