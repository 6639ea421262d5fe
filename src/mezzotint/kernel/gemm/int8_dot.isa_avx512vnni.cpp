#include "mezzotint/kernel/gemm/int8_dot512.h"

namespace mezzotint::kernel {
namespace {

/// vpdpbusd multiplies unsigned codes of b, offset by 128, with signed codes of a.
struct Vnni512 : Vector512 {
  static constexpr int kVectors = 2, kTileRows = 12, kOffset = 128;
  static constexpr int64_t kDepth = 3584;
  static constexpr int64_t kStoredRows = 4;

  MEZZOTINT_INLINE Int dot(Int acc, Int b, Int a) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(b), "v"(a));
    return acc;
  }
  MEZZOTINT_INLINE Int load_columns(const int8_t* p) { return offset(_mm512_loadu_si512(p)); }
  MEZZOTINT_INLINE Int interleave(const int8_t* p, int64_t step) { return offset(interleaved(p, step)); }

 private:
  MEZZOTINT_INLINE Int offset(Int codes) { return _mm512_xor_si512(codes, _mm512_set1_epi8(-128)); }
};

}  // namespace

template <>
Int8Level int8_level<kIsa>() {
  return dot_level<Vnni512>();
}

}  // namespace mezzotint::kernel
