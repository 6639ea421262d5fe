#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Values to codes with given scales. Every operation is one float32 operation, rounded to nearest-even, without
/// contraction and with subnormals, as comfy-kitchen's eager backend does it; codes are the same bytes at every
/// instruction-set level. codes[r * codes_stride + c] belongs to x[r, c]; codes must not overlap x.
///
/// Under Rounding::stochastic a value between two codes becomes either, with its own value as expectation; the random
/// number of an element depends on rounding.key and the element's index alone, so neither tiles nor threads matter.
namespace mezzotint::kernel {

/// fp8(clamp(x * multiplier, +-max)), to = f8_e4m3 or f8_e5m2. The multiplier is 1.0f / scale, a division of its own:
/// x / scale gives other bytes. The sign bit of x is always kept; inf saturates; NaN becomes 0x7F | sign.
void encode_fp8(const Source& x, const Scales& multipliers, DType to, uint8_t* codes, int64_t codes_stride,
                const Rounding& rounding = {}, const ElementIndex& index = {});

/// clamp(rint(x / scale), lowest, 127) = rint(clamp(x / scale, lowest, 127)) with the quotient of a true division (some
/// levels get its bits by multiplying, see isa_int8.h); lowest is -128 (kitchen's int8_tensorwise) or -127
/// (int8_blockwise). inf saturates; NaN (also 0 / 0) becomes 0.
void encode_int8(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
                 const Rounding& rounding = {}, const ElementIndex& index = {});

/// Unscaled stochastic cast of f32 to bf16 or f16; saturates (finite values and inf), NaN as in cast.
void cast_stochastic(const Source& x, DType to, void* dst, int64_t dst_stride, const Rounding& rounding,
                     const ElementIndex& index);

// One level of the above (encode_*.isa.cpp).
template <Isa I>
void encode_fp8(const Source& x, const Scales& multipliers, DType to, uint8_t* codes, int64_t codes_stride,
                const Rounding& rounding, const ElementIndex& index);
template <Isa I>
void encode_int8(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
                 const Rounding& rounding, const ElementIndex& index);
template <Isa I>
void cast_stochastic(const Source& x, DType to, void* dst, int64_t dst_stride, const Rounding& rounding,
                     const ElementIndex& index);

}  // namespace mezzotint::kernel
