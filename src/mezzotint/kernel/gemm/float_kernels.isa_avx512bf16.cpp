// bf16 pairs with float32 accumulators: VDPBF16PS takes subnormal inputs and results as zero.
#include <immintrin.h>

#include "mezzotint/kernel/gemm/bf16_packing.h"

namespace mezzotint::kernel {
namespace {

constexpr int kRows = 14, kColumns = 32;

[[gnu::always_inline]] inline __m512 add_dot(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

template <int R>
void multiply_rows(int64_t dwords, const Byte* a, const Dword* panel, float* c, int64_t c_stride, const float* fold,
                   bool accumulate) {
  __m512 low[R], high[R];
  const bool load = accumulate && fold == nullptr;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    low[r] = load ? _mm512_loadu_ps(c + r * c_stride) : _mm512_setzero_ps();
    high[r] = load ? _mm512_loadu_ps(c + r * c_stride + 16) : _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < dwords; ++k) {
    const __m512i b0 = _mm512_loadu_si512(panel), b1 = _mm512_loadu_si512(panel + 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512i x = _mm512_set1_epi32(static_cast<int>(*reinterpret_cast<const Dword*>(a + r * kPackedRowBytes)));
      low[r] = add_dot(low[r], x, b0);
      high[r] = add_dot(high[r], x, b1);
    }
    panel += kColumns;
    a += 4;
  }
  if (fold != nullptr) {
    const __m512 scale0 = _mm512_loadu_ps(fold), scale1 = _mm512_loadu_ps(fold + 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* to = c + r * c_stride;
      low[r] = accumulate ? _mm512_fmadd_ps(low[r], scale0, _mm512_loadu_ps(to)) : _mm512_mul_ps(low[r], scale0);
      high[r] =
          accumulate ? _mm512_fmadd_ps(high[r], scale1, _mm512_loadu_ps(to + 16)) : _mm512_mul_ps(high[r], scale1);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(c + r * c_stride, low[r]);
    _mm512_storeu_ps(c + r * c_stride + 16, high[r]);
  }
}

/// Calls multiply_rows<rows>.
template <int R>
[[gnu::always_inline]] inline void choose_rows(int64_t rows, int64_t dwords, const Byte* a, const Dword* panel,
                                               float* c, int64_t c_stride, const float* fold, bool accumulate) {
  if (rows == R) return multiply_rows<R>(dwords, a, panel, c, c_stride, fold, accumulate);
  if constexpr (R > 1) choose_rows<R - 1>(rows, dwords, a, panel, c, c_stride, fold, accumulate);
}

void multiply(int64_t rows, int64_t dwords, const void* a, const void* panel, float* c, int64_t c_stride,
              const float* fold, bool accumulate) {
  choose_rows<kRows>(rows, dwords, static_cast<const Byte*>(a), static_cast<const Dword*>(panel), c, c_stride, fold,
                     accumulate);
}

}  // namespace

template <>
FloatKernels bf16_kernels<kIsa>() {
  FloatKernels kernels = bf16_packing();
  kernels.isa = kIsa;
  kernels.rows = kRows;
  kernels.columns = kColumns;
  kernels.granule = 2;
  kernels.full_tiles = false;
  kernels.multiply = multiply;
  return kernels;
}

}  // namespace mezzotint::kernel
