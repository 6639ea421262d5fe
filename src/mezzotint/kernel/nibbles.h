#pragma once
// Packing and unpacking nibbles inside ISA files: internal linkage, see isa_elements.h.
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// Codes that are packed or unpacked at a time: their bytes stay in the first-level cache.
constexpr int64_t kNibbleChunk = 512;

[[gnu::always_inline]] inline void set_nibble(Byte* codes, int64_t col, uint8_t value) {
  const int shift = static_cast<int>(col & 1) * 4;
  Byte& pair = codes[col >> 1];
  pair = static_cast<uint8_t>((pair & (0xF0 >> shift)) | (value & 15) << shift);
}
[[gnu::always_inline]] inline uint8_t get_nibble(const Byte* codes, int64_t col) {
  return static_cast<uint8_t>(codes[col >> 1] >> ((col & 1) * 4) & 15);
}

/// codes[j] = low nibbles of values[2j] and values[2j + 1].
[[gnu::noinline, maybe_unused]] void pack_pairs(const Byte* __restrict values, int64_t pairs, Byte* __restrict codes) {
  const Word* pair = reinterpret_cast<const Word*>(values);
  for (int64_t j = 0; j < pairs; ++j) {
    const uint32_t two = pair[j];
    codes[j] = static_cast<uint8_t>((two & 15) | (two >> 4 & 0xF0));
  }
}
[[gnu::noinline, maybe_unused]] void unpack_pairs(const Byte* __restrict codes, int64_t pairs,
                                                  Byte* __restrict values) {
  Word* pair = reinterpret_cast<Word*>(values);
  for (int64_t j = 0; j < pairs; ++j) {
    const uint32_t both = codes[j];
    pair[j] = static_cast<uint16_t>((both | both << 4) & 0x0F0F);
  }
}

/// pack_pairs for any range of columns of a row.
[[gnu::always_inline]] inline void pack_columns(const Byte* values, int64_t cols, int64_t col0, Byte* codes) {
  if (cols > 0 && (col0 & 1) != 0) {
    set_nibble(codes, col0, values[0]);
    ++values, ++col0, --cols;
  }
  pack_pairs(values, cols >> 1, codes + (col0 >> 1));
  if ((cols & 1) != 0) set_nibble(codes, col0 + cols - 1, values[cols - 1]);
}
[[gnu::always_inline]] inline void unpack_columns(const Byte* codes, int64_t cols, int64_t col0, Byte* values) {
  if (cols > 0 && (col0 & 1) != 0) {
    values[0] = get_nibble(codes, col0);
    ++values, ++col0, --cols;
  }
  unpack_pairs(codes + (col0 >> 1), cols >> 1, values);
  if ((cols & 1) != 0) values[cols - 1] = get_nibble(codes, col0 + cols - 1);
}

}  // namespace
}  // namespace mezzotint::kernel
