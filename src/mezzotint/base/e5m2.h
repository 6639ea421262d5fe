#pragma once
#include "mezzotint/base/small_float.h"

namespace mezzotint {

/// float8_e5m2 (OCP FP8): 1 sign, 5 exponent (bias 15), 2 mantissa bits in one byte. Largest value 57344 = 0x7B,
/// subnormal step 2^-16, inf = 0x7C, NaN = 0x7D..0x7F, written as 0x7F. Values from 61440 on round to inf unless
/// saturating.
struct E5m2 : SmallFloat<5, 2, Specials::ieee> {};

}  // namespace mezzotint
