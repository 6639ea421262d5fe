#pragma once
// Included by ISA files of the amx level: the tile registers behind an interface of one line per instruction, which a
// test emulates in plain C++. The intrinsics of g++ 12 are macros that paste the register's number, so they cannot be
// used with template arguments; this is their text.
#include <cstdint>
#include <cstring>

namespace mezzotint::kernel {
namespace {

/// The operand of ldtilecfg. All tiles are 16 rows of 64 bytes; what is smaller is padded.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

constexpr int kTileDim = 16;  // rows, and columns of 32 bits
constexpr int kTileBytes = 1024;

struct HardwareTiles {
  /// The memory clobber keeps the stores to the configuration, which g++ 12 drops otherwise: it thinks nobody reads it.
  void configure() {
    const TileConfig config;
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  void release() { asm volatile("tilerelease" : : : "memory"); }
  template <int T>
  void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  /// Rows are `stride` bytes apart.
  template <int T>
  void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
  }
  /// C[m][n] += sum over k < 16 and i < 4 of A[m][4 k + i] * B[k][4 n + i], all int8, into int32.
  template <int C, int A, int B>
  void dot_int8() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  /// C[m][n] += sum over k < 16 and i < 2 of A[m][2 k + i] * B[k][2 n + i], bf16, into float32.
  template <int C, int A, int B>
  void dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};

}  // namespace
}  // namespace mezzotint::kernel
