#include "mezzotint/kernel/gemm/bf16_packing.h"

#include <immintrin.h>

#include "mezzotint/kernel/gemm/unroll.h"
#include "mezzotint/kernel/transpose.h"

namespace mezzotint::kernel {
namespace {

void decode(const Operand& m, const Rectangle& part, void* out, int64_t out_stride) {
  decode_to_bf16<kIsa>(m, part, static_cast<uint16_t*>(out), out_stride);
}

void decode_scaled(const Operand& m, const Rectangle& part, const float* factors, void* out, int64_t out_stride) {
  constexpr int64_t kChunk = 512;
  float values[kChunk];
  for (int64_t r = 0; r < part.rows; ++r)
    for (int64_t c = 0; c < part.cols; c += kChunk) {
      const int64_t n = smaller(part.cols - c, kChunk);
      decode_to_f32<Isa::avx512>(m, {part.r0 + r, 1, part.c0 + c, n}, values, kChunk);
      for (int64_t i = 0; i < n; ++i) values[i] *= factors[c + i];
      const Operand scaled{values, ElementCode::f32, 1, n, 0, {}};
      decode_to_bf16<kIsa>(scaled, {0, 1, 0, n}, static_cast<uint16_t*>(out) + r * out_stride + c, 0);
    }
}

/// 16 x 16 dwords: interleaved by dwords and by pairs within the quarters of the vectors, then quarters exchanged.
[[gnu::always_inline]] inline void transpose_square(const Byte* from, int64_t stride, Byte* to, int64_t to_stride) {
  __m512i a[16], b[16];
  unrolled<16>([&]<int I>() MEZZOTINT_UNROLLED { a[I] = _mm512_loadu_si512(from + I * stride); });
  unrolled<8>([&]<int I>() MEZZOTINT_UNROLLED {
    b[2 * I] = _mm512_unpacklo_epi32(a[2 * I], a[2 * I + 1]);
    b[2 * I + 1] = _mm512_unpackhi_epi32(a[2 * I], a[2 * I + 1]);
  });
  unrolled<4>([&]<int I>() MEZZOTINT_UNROLLED {  // a[4 I + j]: column j of each quarter, rows 4 I to 4 I + 3
    a[4 * I] = _mm512_unpacklo_epi64(b[4 * I], b[4 * I + 2]);
    a[4 * I + 1] = _mm512_unpackhi_epi64(b[4 * I], b[4 * I + 2]);
    a[4 * I + 2] = _mm512_unpacklo_epi64(b[4 * I + 1], b[4 * I + 3]);
    a[4 * I + 3] = _mm512_unpackhi_epi64(b[4 * I + 1], b[4 * I + 3]);
  });
  unrolled<4>([&]<int J>() MEZZOTINT_UNROLLED {
    const __m512i low02 = _mm512_shuffle_i32x4(a[J], a[4 + J], 0x88),
                  low13 = _mm512_shuffle_i32x4(a[J], a[4 + J], 0xDD);
    const __m512i high02 = _mm512_shuffle_i32x4(a[8 + J], a[12 + J], 0x88),
                  high13 = _mm512_shuffle_i32x4(a[8 + J], a[12 + J], 0xDD);
    _mm512_storeu_si512(to + J * to_stride, _mm512_shuffle_i32x4(low02, high02, 0x88));
    _mm512_storeu_si512(to + (4 + J) * to_stride, _mm512_shuffle_i32x4(low13, high13, 0x88));
    _mm512_storeu_si512(to + (8 + J) * to_stride, _mm512_shuffle_i32x4(low02, high02, 0xDD));
    _mm512_storeu_si512(to + (12 + J) * to_stride, _mm512_shuffle_i32x4(low13, high13, 0xDD));
  });
}

void transpose_dwords(const void* rows, int64_t count, int64_t dwords, int64_t stride, void* panel, int64_t columns) {
  const int64_t squares = count == 16 ? dwords / 16 * 16 : 0;
  for (int64_t i = 0; i < squares; i += 16)
    transpose_square(static_cast<const Byte*>(rows) + 4 * i, 4 * stride, static_cast<Byte*>(panel) + 4 * i * columns,
                     4 * columns);
  transpose<Isa::avx512>(static_cast<const Dword*>(rows) + squares, count, dwords - squares, stride,
                         static_cast<Dword*>(panel) + squares * columns, columns, 4);
}

/// Positions of words that interleave the first or second half of two vectors.
struct Order {
  alignas(64) uint16_t first[32], second[32];
};
constexpr Order make_order() {
  Order order{};
  for (int i = 0; i < 16; ++i) {
    order.first[2 * i] = static_cast<uint16_t>(i);
    order.first[2 * i + 1] = static_cast<uint16_t>(32 + i);
    order.second[2 * i] = static_cast<uint16_t>(16 + i);
    order.second[2 * i + 1] = static_cast<uint16_t>(48 + i);
  }
  return order;
}
constexpr Order kOrder = make_order();

void interleave(const void* first, const void* second, int64_t columns, void* out) {
  const __m512i order0 = _mm512_load_si512(kOrder.first), order1 = _mm512_load_si512(kOrder.second);
  for (int64_t c = 0; c < columns; c += 32) {
    const __m512i a = _mm512_loadu_si512(static_cast<const Word*>(first) + c);
    const __m512i b = _mm512_loadu_si512(static_cast<const Word*>(second) + c);
    _mm512_storeu_si512(static_cast<Dword*>(out) + c, _mm512_permutex2var_epi16(a, order0, b));
    _mm512_storeu_si512(static_cast<Dword*>(out) + c + 16, _mm512_permutex2var_epi16(a, order1, b));
  }
}

[[gnu::always_inline]] inline __m512i load(const Byte* p) {
  return _mm512_loadu_si512(p);
}
[[gnu::always_inline]] inline __m512 add_dot(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

/// Two chains of sums per row hide the latency of the dot product.
void dot(const void* w, int64_t w_stride, const void* x, int64_t x_stride, int64_t count, int64_t dwords, float* sums,
         const float* fold, bool accumulate) {
  const Byte* ws = static_cast<const Byte*>(w);
  for (int64_t m = 0; m < count; ++m) {
    const Byte* xs = static_cast<const Byte*>(x) + m * x_stride;
    __m512 even[kDotRows], odd[kDotRows];
#pragma GCC unroll 4
    for (int r = 0; r < kDotRows; ++r) even[r] = odd[r] = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + 32 <= dwords; i += 32) {
      const __m512i x0 = load(xs + 4 * i), x1 = load(xs + 4 * i + 64);
#pragma GCC unroll 4
      for (int r = 0; r < kDotRows; ++r) {
        even[r] = add_dot(even[r], x0, load(ws + r * w_stride + 4 * i));
        odd[r] = add_dot(odd[r], x1, load(ws + r * w_stride + 4 * i + 64));
      }
    }
    if (i < dwords) {
      const __m512i x0 = load(xs + 4 * i);
#pragma GCC unroll 4
      for (int r = 0; r < kDotRows; ++r) even[r] = add_dot(even[r], x0, load(ws + r * w_stride + 4 * i));
    }
#pragma GCC unroll 4
    for (int r = 0; r < kDotRows; ++r) {
      float* to = sums + (r * count + m) * kLanes;
      __m512 sum = _mm512_add_ps(even[r], odd[r]);
      if (fold != nullptr) sum = _mm512_mul_ps(sum, _mm512_set1_ps(fold[r]));
      if (accumulate) sum = _mm512_add_ps(sum, _mm512_loadu_ps(to));
      _mm512_storeu_ps(to, sum);
    }
  }
}

}  // namespace

FloatKernels bf16_packing() {
  FloatKernels kernels{};
  kernels.element_bytes = 2;
  kernels.decode = decode;
  kernels.decode_scaled = decode_scaled;
  kernels.transpose_dwords = transpose_dwords;
  kernels.interleave = interleave;
  kernels.dot = dot;
  kernels.dot_stored = dot_stored;
  kernels.finish = finish_columns<Isa::avx512>;
  return kernels;
}

}  // namespace mezzotint::kernel
