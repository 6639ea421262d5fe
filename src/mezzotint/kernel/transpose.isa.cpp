#include "mezzotint/kernel/transpose.h"

#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

constexpr int64_t kTile = 32;

template <class T>
void blocked(const T* __restrict src, int64_t rows, int64_t cols, int64_t src_stride, T* __restrict dst,
             int64_t dst_stride) {
  for (int64_t r0 = 0; r0 < rows; r0 += kTile)
    for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
      const int64_t r1 = smaller(r0 + kTile, rows), c1 = smaller(c0 + kTile, cols);
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r) dst[c * dst_stride + r] = src[r * src_stride + c];
    }
}

}  // namespace

template <>
void transpose<kIsa>(const void* src, int64_t rows, int64_t cols, int64_t src_stride, void* dst, int64_t dst_stride,
                     int element_bytes) {
  if (element_bytes == 1)
    return blocked(static_cast<const Byte*>(src), rows, cols, src_stride, static_cast<Byte*>(dst), dst_stride);
  if (element_bytes == 2)
    return blocked(static_cast<const Word*>(src), rows, cols, src_stride, static_cast<Word*>(dst), dst_stride);
  blocked(static_cast<const Dword*>(src), rows, cols, src_stride, static_cast<Dword*>(dst), dst_stride);
}

}  // namespace mezzotint::kernel
