#pragma once
#include "mezzotint/base/small_float.h"

namespace mezzotint {

/// float8_e4m3fn (OCP FP8): 1 sign, 4 exponent (bias 7), 3 mantissa bits in one byte. Largest value 448 = 0x7E,
/// subnormal step 2^-9, no inf, NaN = 0x7F and 0xFF. encode gives NaN above 464; quantizers use
/// encode_saturating.
struct E4m3 : SmallFloat<4, 3, Specials::fn> {};

}  // namespace mezzotint
