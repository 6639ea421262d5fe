#pragma once
#include "mezzotint/base/scalar.h"

namespace mezzotint {

/// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC
/// 2011): four words for each 128-bit counter and 64-bit key.
struct Philox {
  struct Block {
    uint32_t word[4];
  };

  MEZZOTINT_SCALAR static Block generate(Block counter, uint32_t key0, uint32_t key1) {
    uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c0;
      const uint64_t p1 = uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key0;
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    return {{c0, c1, c2, c3}};
  }

  /// Words 4 * block ... 4 * block + 3 of the stream `key`.
  MEZZOTINT_SCALAR static Block stream(uint64_t key, uint64_t block) {
    return generate({{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0}},
                    static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32));
  }
};

/// The 32 random bits of element `index` in the stream `key`.
MEZZOTINT_SCALAR uint32_t random_bits(uint64_t key, uint64_t index) {
  const Philox::Block block = Philox::stream(key, index >> 2);
  return block.word[index & 3];
}

}  // namespace mezzotint
