#pragma once
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Conversions between f32, bf16 and f16.
namespace mezzotint::kernel {

/// What becomes of values beyond the largest of the target: inf (IEEE) or the largest value, inf included.
enum class Overflow : uint8_t { infinity, saturate };

/// dst[r * dst_stride + c] = x[r, c] as `to` (f32, bf16 or f16), nearest-even; signed zeros and subnormals are kept.
/// NaN stays NaN: sign and upper payload kept, quieted. Casting to the source's own dtype copies every bit. dst may lie
/// at any address and must not overlap x. Stochastic rounding: encode.h.
void cast(const Source& x, DType to, void* dst, int64_t dst_stride, Overflow overflow = Overflow::infinity);

// One level of the above (cast.isa.cpp).
template <Isa I>
void cast(const Source& x, DType to, void* dst, int64_t dst_stride, Overflow overflow);

}  // namespace mezzotint::kernel
