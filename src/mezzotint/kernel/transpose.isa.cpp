#include "mezzotint/kernel/transpose.h"

#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

// 128-bit vectors of every element size; the compiler's shuffles need no intrinsics and run at every level.
struct Bytes1 {
  using Stored = Byte;
  typedef uint8_t Vector __attribute__((vector_size(16)));
  [[gnu::always_inline]] static Vector low(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  [[gnu::always_inline]] static Vector high(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
};
struct Bytes2 {
  using Stored = Word;
  typedef uint16_t Vector __attribute__((vector_size(16)));
  [[gnu::always_inline]] static Vector low(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  }
  [[gnu::always_inline]] static Vector high(Vector a, Vector b) {
    return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
};
struct Bytes4 {
  using Stored = Dword;
  typedef uint32_t Vector __attribute__((vector_size(16)));
  [[gnu::always_inline]] static Vector low(Vector a, Vector b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
  [[gnu::always_inline]] static Vector high(Vector a, Vector b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
};

/// One N x N tile, N elements to a vector. Interleaving row i with row i + N / 2 rotates the index bits (row, column)
/// of every element by one; log2(N) times swaps row and column.
template <class Element, int N>
[[gnu::always_inline]] inline void tile(const typename Element::Stored* src, int64_t src_stride,
                                        typename Element::Stored* dst, int64_t dst_stride) {
  typename Element::Vector a[N], b[N];
  for (int i = 0; i < N; ++i) __builtin_memcpy(&a[i], src + i * src_stride, sizeof a[i]);
  for (int step = 1; step < N; step *= 2) {
    for (int i = 0; i < N / 2; ++i) {
      b[2 * i] = Element::low(a[i], a[i + N / 2]);
      b[2 * i + 1] = Element::high(a[i], a[i + N / 2]);
    }
    for (int i = 0; i < N; ++i) a[i] = b[i];
  }
  for (int i = 0; i < N; ++i) __builtin_memcpy(dst + i * dst_stride, &a[i], sizeof a[i]);
}

template <class Element>
void blocked(const void* from, int64_t rows, int64_t cols, int64_t src_stride, void* to, int64_t dst_stride) {
  constexpr int kTile = 16 / sizeof(typename Element::Stored);
  constexpr int64_t kBand = 64;  // rows; the written lines of one column of tiles are completed while they are in L1
  using Stored = typename Element::Stored;  // named: deduction by auto would drop its alignment
  const Stored* src = static_cast<const Stored*>(from);
  Stored* dst = static_cast<Stored*>(to);
  const int64_t full_cols = cols / kTile * kTile;
  for (int64_t r0 = 0; r0 < rows; r0 += kBand) {
    const int64_t r1 = smaller(r0 + kBand, rows), full_rows = r0 + (r1 - r0) / kTile * kTile;
    for (int64_t c = 0; c < full_cols; c += kTile)
      for (int64_t r = r0; r < full_rows; r += kTile)
        tile<Element, kTile>(src + r * src_stride + c, src_stride, dst + c * dst_stride + r, dst_stride);
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = c < full_cols ? full_rows : r0; r < r1; ++r) dst[c * dst_stride + r] = src[r * src_stride + c];
  }
}

}  // namespace

template <>
void transpose<kIsa>(const void* src, int64_t rows, int64_t cols, int64_t src_stride, void* dst, int64_t dst_stride,
                     int element_bytes) {
  if (element_bytes == 1) return blocked<Bytes1>(src, rows, cols, src_stride, dst, dst_stride);
  if (element_bytes == 2) return blocked<Bytes2>(src, rows, cols, src_stride, dst, dst_stride);
  blocked<Bytes4>(src, rows, cols, src_stride, dst, dst_stride);
}

}  // namespace mezzotint::kernel
