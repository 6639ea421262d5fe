#include "mezzotint/kernel/gemm/int8_dot256.h"

namespace mezzotint::kernel {
namespace {

/// vpdpbusd as in the AVX-512 level.
struct Vnni256 : Vector256 {
  static constexpr int kGroup = 4, kOffset = 128;
  static constexpr int64_t kDepth = 3584;

  MEZZOTINT_INLINE Int dot(Int acc, Int b, Int a) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(b), "x"(a));
    return acc;
  }
  MEZZOTINT_INLINE Int load_columns(const int8_t* p) { return _mm256_xor_si256(load_rows(p), _mm256_set1_epi8(-128)); }
  MEZZOTINT_INLINE Int load_rows(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  MEZZOTINT_INLINE int32_t group(const int8_t* p, int64_t n) {
    int32_t codes = 0;
    __builtin_memcpy(&codes, p, static_cast<size_t>(n));
    return codes;
  }
  MEZZOTINT_INLINE Int interleave(const int8_t* p, int64_t step) {
    const __m128i r01 = _mm_unpacklo_epi8(eight(p), eight(p + step));
    const __m128i r23 = _mm_unpacklo_epi8(eight(p + 2 * step), eight(p + 3 * step));
    return _mm256_xor_si256(_mm256_set_m128i(_mm_unpackhi_epi16(r01, r23), _mm_unpacklo_epi16(r01, r23)),
                            _mm256_set1_epi8(-128));
  }
};

}  // namespace

template <>
Int8Level int8_level<kIsa>() {
  return dot_level<Vnni256>();
}

}  // namespace mezzotint::kernel
