#pragma once
#include <cstdint>

#include "mezzotint/kernel/isa.h"

namespace mezzotint::kernel {

/// dst[c * dst_stride + r] = src[r * src_stride + c] for a rows x cols matrix of elements of 1, 2 or 4 bytes; strides
/// count elements. The pointers need no alignment, and the matrices do not overlap.
void transpose(const void* src, int64_t rows, int64_t cols, int64_t src_stride, void* dst, int64_t dst_stride,
               int element_bytes);

// One level of the above (transpose.isa.cpp).
template <Isa I>
void transpose(const void* src, int64_t rows, int64_t cols, int64_t src_stride, void* dst, int64_t dst_stride,
               int element_bytes);

}  // namespace mezzotint::kernel
