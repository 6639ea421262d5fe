// Few rows times stored fp8: the stored bytes are read once, in order, and meet the activations in registers.
#include "mezzotint/kernel/gemm/bf16_packing.h"
#include "mezzotint/kernel/gemm/byte_decoder.h"

namespace mezzotint::kernel {
namespace {

/// Far enough ahead that a row's last sums do not stop the stream from memory.
constexpr int64_t kPrefetchBytes = 8192;

[[gnu::always_inline]] inline __m512 add_dot(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}
[[gnu::always_inline]] inline __m512i load(const Byte* p) {
  return _mm512_loadu_si512(p);
}

template <int M>
void stream(const ByteDecoder& table, const Operand& w, int64_t n0, int64_t n, const Byte* x, int64_t x_stride,
            float* sums, int64_t sums_stride) {
  const ByteDecoder decode = table;
  for (int64_t i = 0; i < n; ++i) {
    const Byte* codes = static_cast<const Byte*>(w.data) + (n0 + i) * w.stride;
    __m512 a[M], b[M], c[M], d[M];  // four chains hide the latency of the dot product
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) a[m] = b[m] = c[m] = d[m] = _mm512_setzero_ps();
    // What lies outside of `count` codes is left out on both sides: 0 * inf is NaN.
    const auto part = [&](int64_t k, int64_t count) {
      const __mmask64 mask = count >= 64 ? ~0ull : (1ull << count) - 1;
      const Pair pair = decode(_mm512_maskz_loadu_epi8(mask, codes + k));
      const auto low = static_cast<__mmask32>(mask), high = static_cast<__mmask32>(mask >> 32);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Byte* at = x + m * x_stride + 2 * k;
        a[m] = add_dot(a[m], pair.first, _mm512_maskz_loadu_epi16(low, at));
        b[m] = add_dot(b[m], pair.second, _mm512_maskz_loadu_epi16(high, at + 64));
      }
    };
    // Loads that cross cache lines would halve the stream from memory; the caller has placed x so that its loads are
    // aligned where these are.
    int64_t k = smaller<int64_t>(static_cast<int64_t>(-reinterpret_cast<uintptr_t>(codes) % 64), w.cols);
    if (k > 0) part(0, k);
    for (; k + 128 <= w.cols; k += 128) {
      const uintptr_t ahead = reinterpret_cast<uintptr_t>(codes) + static_cast<uintptr_t>(k + kPrefetchBytes);
      __builtin_prefetch(reinterpret_cast<const void*>(ahead));
      __builtin_prefetch(reinterpret_cast<const void*>(ahead + 64));
      const Pair first = decode(_mm512_load_si512(codes + k)), second = decode(_mm512_load_si512(codes + k + 64));
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const Byte* at = x + m * x_stride + 2 * k;
        a[m] = add_dot(a[m], first.first, load(at));
        b[m] = add_dot(b[m], first.second, load(at + 64));
        c[m] = add_dot(c[m], second.first, load(at + 128));
        d[m] = add_dot(d[m], second.second, load(at + 192));
      }
    }
    for (; k < w.cols; k += 64) part(k, w.cols - k);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
      sums[m * sums_stride + i] =
          _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a[m], b[m]), _mm512_add_ps(c[m], d[m])));
  }
}

}  // namespace

bool dot_stored(const Operand& w, int64_t n0, int64_t n, const void* x, int64_t x_stride, int64_t count, float* sums,
                int64_t sums_stride) {
  const bool e4m3 = w.code == ElementCode::e4m3;
  if ((!e4m3 && w.code != ElementCode::e5m2) || w.scales.code != ScaleCode::none) return false;
  const ByteDecoder table(e4m3 ? kE4m3Table : kE5m2Table);
  const auto run = [&]<int M> {
    stream<M>(table, w, n0, n, static_cast<const Byte*>(x), x_stride, sums, sums_stride);
    return true;
  };
  switch (count) {
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    case 3:
      return run.template operator()<3>();
    case 4:
      return run.template operator()<4>();
    case 5:
      return run.template operator()<5>();
    case 6:
      return run.template operator()<6>();
  }
  return false;
}

}  // namespace mezzotint::kernel
