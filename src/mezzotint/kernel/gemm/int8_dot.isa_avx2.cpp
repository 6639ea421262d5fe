#include "mezzotint/kernel/gemm/int8_dot256.h"

namespace mezzotint::kernel {
namespace {

/// vpmaddwd on codes widened to 16 bits: vpmaddubsw would saturate (-128 * -128 twice is 32768).
struct Madd256 : Vector256 {
  static constexpr int kGroup = 2, kOffset = 0;
  static constexpr int64_t kDepth = 1792;

  MEZZOTINT_INLINE Int dot(Int acc, Int b, Int a) {
    asm("vpaddd %1, %0, %0" : "+x"(acc) : "x"(_mm256_madd_epi16(b, a)));
    return acc;
  }
  MEZZOTINT_INLINE Int load_columns(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  MEZZOTINT_INLINE Int load_rows(const int8_t* p) { return load_columns(p); }
  MEZZOTINT_INLINE int32_t group(const int8_t* p, int64_t n) {
    const auto second = static_cast<uint32_t>(n > 1 ? p[1] : 0);
    return static_cast<int32_t>((static_cast<uint32_t>(p[0]) & 0xFFFF) | second << 16);
  }
  MEZZOTINT_INLINE Int interleave(const int8_t* p, int64_t step) {
    return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(eight(p), eight(p + step)));
  }
};

}  // namespace

template <>
Int8Level int8_level<kIsa>() {
  return dot_level<Madd256>();
}

}  // namespace mezzotint::kernel
