// The float32 kernels of every base level, and the last step of every product.
#include "mezzotint/kernel/gemm/float_kernels.h"

#include "mezzotint/kernel/gemm/finish.h"
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/transpose.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mezzotint::kernel {
namespace {

#if defined(__AVX512F__)
constexpr int kRows = 14;
struct Vector {
  static constexpr int kCount = 16;
  __m512 v;
  static Vector zero() { return {_mm512_setzero_ps()}; }
  static Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vector all(const float* p) { return {_mm512_set1_ps(*p)}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  Vector add_product(Vector a, Vector b) const { return {_mm512_fmadd_ps(a.v, b.v, v)}; }
};
#elif defined(__AVX2__)
constexpr int kRows = 6;
struct Vector {
  static constexpr int kCount = 8;
  __m256 v;
  static Vector zero() { return {_mm256_setzero_ps()}; }
  static Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vector all(const float* p) { return {_mm256_set1_ps(*p)}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  Vector add_product(Vector a, Vector b) const { return {_mm256_fmadd_ps(a.v, b.v, v)}; }
};
#else
constexpr int kRows = 4;
struct Vector {
  static constexpr int kCount = 4;
  typedef float Four __attribute__((vector_size(16)));
  Four v;
  static Vector zero() { return {Four{}}; }
  static Vector load(const float* p) {
    Vector x;
    __builtin_memcpy(&x.v, p, sizeof x.v);
    return x;
  }
  static Vector all(const float* p) { return {Four{} + *p}; }
  void store(float* p) const { __builtin_memcpy(p, &v, sizeof v); }
  Vector add_product(Vector a, Vector b) const { return {v + a.v * b.v}; }
};
#endif
constexpr int kColumns = 2 * Vector::kCount;

template <int R>
void multiply_rows(int64_t depth, const Byte* a, const float* panel, float* c, int64_t c_stride, bool accumulate) {
  Vector low[R], high[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    low[r] = accumulate ? Vector::load(c + r * c_stride) : Vector::zero();
    high[r] = accumulate ? Vector::load(c + r * c_stride + Vector::kCount) : Vector::zero();
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vector b0 = Vector::load(panel), b1 = Vector::load(panel + Vector::kCount);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector x = Vector::all(reinterpret_cast<const float*>(a + r * kPackedRowBytes));
      low[r] = low[r].add_product(x, b0);
      high[r] = high[r].add_product(x, b1);
    }
    panel += kColumns;
    a += sizeof(float);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    low[r].store(c + r * c_stride);
    high[r].store(c + r * c_stride + Vector::kCount);
  }
}

/// Calls multiply_rows<rows>.
template <int R>
[[gnu::always_inline]] inline void choose_rows(int64_t rows, int64_t depth, const Byte* a, const float* panel, float* c,
                                               int64_t c_stride, bool accumulate) {
  if (rows == R) return multiply_rows<R>(depth, a, panel, c, c_stride, accumulate);
  if constexpr (R > 1) choose_rows<R - 1>(rows, depth, a, panel, c, c_stride, accumulate);
}

void multiply(int64_t rows, int64_t dwords, const void* a, const void* panel, float* c, int64_t c_stride,
              const float* /*fold: f32 scales are decoded*/, bool accumulate) {
  choose_rows<kRows>(rows, dwords, static_cast<const Byte*>(a), static_cast<const float*>(panel), c, c_stride,
                     accumulate);
}

void dot(const void* w, int64_t w_stride, const void* x, int64_t x_stride, int64_t count, int64_t dwords, float* sums,
         const float* /*fold*/, bool accumulate) {
  constexpr int kVectors = kLanes / Vector::kCount;
  for (int64_t m = 0; m < count; ++m) {
    const Byte* xs = static_cast<const Byte*>(x) + m * x_stride;
    const Byte* ws = static_cast<const Byte*>(w);
    float* out = sums + m * kLanes;
    for (int v = 0; v < kVectors; ++v) {
      Vector s[kDotRows];
      for (int r = 0; r < kDotRows; ++r)
        s[r] = accumulate ? Vector::load(out + r * count * kLanes + v * Vector::kCount) : Vector::zero();
      for (int64_t i = v * Vector::kCount; i < dwords; i += kLanes) {
        const Vector value = Vector::load(reinterpret_cast<const float*>(xs) + i);
        for (int r = 0; r < kDotRows; ++r)
          s[r] = s[r].add_product(value, Vector::load(reinterpret_cast<const float*>(ws + r * w_stride) + i));
      }
      for (int r = 0; r < kDotRows; ++r) s[r].store(out + r * count * kLanes + v * Vector::kCount);
    }
  }
}

void decode(const Operand& m, const Rectangle& part, void* out, int64_t out_stride) {
  decode_to_f32<kIsa>(m, part, static_cast<float*>(out), out_stride);
}

void decode_scaled(const Operand& m, const Rectangle& part, const float* factors, void* out, int64_t out_stride) {
  decode(m, part, out, out_stride);
  for (int64_t r = 0; r < part.rows; ++r) {
    float* __restrict row = static_cast<float*>(out) + r * out_stride;
    for (int64_t c = 0; c < part.cols; ++c) row[c] *= factors[c];
  }
}

void transpose_dwords(const void* rows, int64_t count, int64_t dwords, int64_t stride, void* panel, int64_t columns) {
  transpose<kIsa>(rows, count, dwords, stride, panel, columns, 4);
}

void interleave(const void* first, const void* /*second*/, int64_t columns, void* out) {
  __builtin_memcpy(out, first, static_cast<size_t>(columns) * sizeof(float));
}

}  // namespace

template <>
void finish_columns<kIsa>(const Epilogue& epilogue, int64_t row, int64_t col0, int64_t columns, float* sums,
                          const Output& y) {
  finish_values(epilogue, row, col0, columns, sums);
  store_values(y, row, col0, columns, sums);
}

template <>
FloatKernels f32_kernels<kIsa>() {
  FloatKernels kernels{};
  kernels.isa = kIsa;
  kernels.element_bytes = 4;
  kernels.rows = kRows;
  kernels.columns = kColumns;
  kernels.granule = 1;
  kernels.decode = decode;
  kernels.decode_scaled = decode_scaled;
  kernels.transpose_dwords = transpose_dwords;
  kernels.interleave = interleave;
  kernels.multiply = multiply;
  kernels.dot = dot;
  kernels.finish = finish_columns<kIsa>;
  return kernels;
}

}  // namespace mezzotint::kernel
