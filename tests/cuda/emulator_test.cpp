#include "cuda/emulator.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>

#include "mezzotint/base/error.h"
#include "mezzotint/kernel/cuda/codec.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/cuda/device/gemm_int8.h"
#include "mezzotint/kernel/cuda/gemm_int8.h"
#include "support/seed.h"

namespace mezzotint::kernel::cuda::test {
namespace {

template <class F>
void on_block(uint32_t threads, uint64_t seed, F body) {
  emulate({1, 1}, threads, seed, body, [] {});
}

TEST(Emulator, BarriersSeparateWritersFromReaders) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    uint32_t shared[128] = {}, right = 0;
    on_block(128, seed, [&](EmulatedThread& m) {
      shared[m.thread()] = m.thread() + 1;
      m.sync();
      right += shared[127 - m.thread()] == 128 - m.thread() ? 1 : 0;
    });
    EXPECT_EQ(right, 128u);
  }
  // Without the barrier the random order shows.
  uint32_t shared[128] = {}, right = 0;
  on_block(128, 1, [&](EmulatedThread& m) {
    shared[m.thread()] = m.thread() + 1;
    right += shared[127 - m.thread()] == 128 - m.thread() ? 1 : 0;
  });
  EXPECT_LT(right, 128u);
}

TEST(Emulator, ABarrierThatSomeMissIsAnError) {
  EXPECT_THROW(on_block(64, 1,
                        [](EmulatedThread& m) {
                          if (m.thread() != 5) m.sync();
                        }),
               std::logic_error);
  EXPECT_THROW(on_block(64, 1,
                        [](EmulatedThread& m) {
                          if (m.thread() % 2 == 0) m.warp_max(1, 32);
                        }),
               std::logic_error);
}

TEST(Emulator, CopiesAreLateUntilWaitedFor) {
  alignas(16) const uint8_t global[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
  on_block(32, 1, [&](EmulatedThread& m) {
    alignas(16) uint8_t first[16] = {}, second[16] = {};
    std::memset(second, 0x55, sizeof second);
    m.copy_async(first, global, 16);
    m.commit();
    m.copy_async(second, global + 16, 1);
    m.commit();
    EXPECT_EQ(first[0], 0);
    m.wait<1>();
    EXPECT_EQ(first[15], 16);
    EXPECT_EQ(second[0], 0x55);
    m.wait<0>();
    EXPECT_EQ(second[0], 17);
    EXPECT_EQ(second[1], 0);  // the rest is zeros
  });
}

TEST(Emulator, MaximaStayWithinTheirGroupsOfLanes) {
  on_block(64, 3, [](EmulatedThread& m) {
    EXPECT_EQ(m.warp_max(m.thread(), 2), m.thread() | 1);
    EXPECT_EQ(m.warp_max(m.thread(), 16), m.thread() | 15);
    EXPECT_EQ(m.warp_max(m.thread(), 32), m.thread() | 31);
  });
}

/// The fragments as machine.h describes them, filled from and compared with whole matrices.
TEST(Emulator, MmaMultipliesMatrices) {
  auto rng = mezzotint::test::test_rng();
  int8_t a[16][32], b[32][8];
  for (auto& row : a)
    for (int8_t& x : row) x = static_cast<int8_t>(rng());
  for (auto& row : b)
    for (int8_t& x : row) x = static_cast<int8_t>(rng());
  on_block(32, 1, [&](EmulatedThread& m) {
    const uint32_t g = m.thread() / 4, t = m.thread() % 4;
    uint32_t left[4] = {}, right[2] = {};
    for (uint32_t i = 0; i < 4; ++i)
      for (uint32_t j = 0; j < 4; ++j) {
        left[i] |= static_cast<uint32_t>(static_cast<uint8_t>(a[g + 8 * (i % 2)][16 * (i / 2) + 4 * t + j])) << (8 * j);
        if (i < 2) right[i] |= static_cast<uint32_t>(static_cast<uint8_t>(b[16 * i + 4 * t + j][g])) << (8 * j);
      }
    int32_t d[4] = {1, 2, 3, 4};
    m.mma(d, left, right[0], right[1]);
    for (uint32_t i = 0; i < 4; ++i) {
      int32_t expected = static_cast<int32_t>(i) + 1;
      for (uint32_t k = 0; k < 32; ++k) expected += a[g + 8 * (i / 2)][k] * b[k][2 * t + i % 2];
      EXPECT_EQ(d[i], expected);
    }
  });
}

TEST(Emulator, LoadedMatricesAreFragments) {
  alignas(16) uint8_t tile[16][32];
  for (uint32_t r = 0; r < 16; ++r)
    for (uint32_t c = 0; c < 32; ++c) tile[r][c] = static_cast<uint8_t>(r * 16 + c);
  on_block(32, 1, [&](EmulatedThread& m) {
    const uint32_t lane = m.thread();
    uint32_t r[4];
    m.load_matrices(r, &tile[lane / 8 % 2 * 8 + lane % 8][lane / 16 * 16]);
    for (uint32_t i = 0; i < 4; ++i)
      EXPECT_EQ(static_cast<uint8_t>(r[i] >> 16), tile[lane / 4 + 8 * (i % 2)][16 * (i / 2) + lane % 4 * 4 + 2]);
  });
}

// Shared-memory banks are 4 bytes wide and 32 in number; eight rows of 16 bytes that ldmatrix reads at once must cover
// all of them.
TEST(GemmInt8Layout, NoTwoRowsOfAnLdmatrixMeetInABank) {
  using Gemm = device::GemmInt8<device::F32, true, 4>;
  for (uint32_t first = 0; first < Gemm::kRows; first += 8)
    for (uint32_t chunk = 0; chunk < 4; ++chunk) {
      uint32_t seen = 0;
      for (uint32_t row = first; row < first + 8; ++row) seen |= 1u << (Gemm::place(row, chunk) / 16 % 8);
      EXPECT_EQ(seen, 0xFFu);
    }
}

TEST(Cuda, IsSilentAboutNothingWithoutADevice) {
  if (available()) GTEST_SKIP() << "a GPU is here";
  if (built()) {
    EXPECT_NE(architectures(), "");
    return;
  }
  EXPECT_TRUE(devices().empty());
  EXPECT_EQ(architectures(), "");
  const auto name_of = [](auto call) {
    try {
      call();
    } catch (const Error& error) {
      return std::string(error.name());
    }
    return std::string();
  };
  EXPECT_EQ(name_of([] { allocate(1); }), "cuda-not-built");
  EXPECT_EQ(name_of([] { synchronize(nullptr); }), "cuda-not-built");
  EXPECT_EQ(name_of([] { gemm_int8_blockwise({}, nullptr, nullptr, nullptr); }), "cuda-not-built");
  EXPECT_EQ(name_of([] { amax_blocks({}, 0, 0, nullptr, 0, nullptr, nullptr); }), "cuda-not-built");
}

}  // namespace
}  // namespace mezzotint::kernel::cuda::test
