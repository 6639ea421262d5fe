#pragma once
// For *.isa_avx512bf16.cpp files: codes of 8 bits to bf16 by VBMI table look-ups.
#include <immintrin.h>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// Upper and lower bytes of the bf16 value of every magnitude code.
struct Bf16Table {
  alignas(64) uint8_t low[128], high[128];
};
template <class Code>
constexpr Bf16Table make_table() {
  Bf16Table table{};
  for (uint32_t code = 0; code < 128; ++code) {
    const uint32_t value = float_bits(Code::decode(code)) >> 16;
    table.low[code] = static_cast<uint8_t>(value);
    table.high[code] = static_cast<uint8_t>(value >> 8);
  }
  return table;
}
constexpr Bf16Table kE4m3Table = make_table<E4m3>();
constexpr Bf16Table kE5m2Table = make_table<E5m2>();

/// Byte positions that interleave the first or second half of two vectors.
struct Interleave {
  alignas(64) uint8_t first[64], second[64];
};
constexpr Interleave make_interleave() {
  Interleave order{};
  for (int i = 0; i < 32; ++i) {
    order.first[2 * i] = static_cast<uint8_t>(i);
    order.first[2 * i + 1] = static_cast<uint8_t>(64 + i);
    order.second[2 * i] = static_cast<uint8_t>(32 + i);
    order.second[2 * i + 1] = static_cast<uint8_t>(96 + i);
  }
  return order;
}
constexpr Interleave kInterleave = make_interleave();

/// Lanes [0, n) of 64, or of 32, 16.
[[gnu::always_inline]] inline __mmask64 first_bytes(int64_t n) {
  return n >= 64 ? ~0ull : n <= 0 ? 0 : (1ull << n) - 1;
}
[[gnu::always_inline]] inline __mmask32 first_words(int64_t n) {
  return static_cast<__mmask32>(n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1);
}
[[gnu::always_inline]] inline __mmask16 first_dwords(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1u << n) - 1);
}

struct Pair {
  __m512i first, second;  ///< 32 bf16 each
};

/// A sign-magnitude code of 8 bits.
struct ByteDecoder {
  __m512i low0, low1, high0, high1, order0, order1;

  [[gnu::always_inline]] explicit ByteDecoder(const Bf16Table& table)
      : low0(_mm512_load_si512(table.low)),
        low1(_mm512_load_si512(table.low + 64)),
        high0(_mm512_load_si512(table.high)),
        high1(_mm512_load_si512(table.high + 64)),
        order0(_mm512_load_si512(kInterleave.first)),
        order1(_mm512_load_si512(kInterleave.second)) {}

  [[gnu::always_inline]] Pair operator()(__m512i codes) const {
    // The look-up ignores bit 7, the sign.
    const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
    const __m512i magnitude = _mm512_permutex2var_epi8(high0, codes, high1);
    const __m512i high = _mm512_ternarylogic_epi32(magnitude, codes, _mm512_set1_epi8(-128), 0xF8);  // a | (b & c)
    return {_mm512_permutex2var_epi8(low, order0, high), _mm512_permutex2var_epi8(low, order1, high)};
  }
};

}  // namespace
}  // namespace mezzotint::kernel
