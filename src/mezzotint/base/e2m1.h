#pragma once
#include "mezzotint/base/small_float.h"

namespace mezzotint {

/// FP4 E2M1 (OCP MX): 1 sign, 2 exponent (bias 1), 1 mantissa bit in the low four bits of a byte. Magnitudes 0, 0.5, 1,
/// 1.5, 2, 3, 4, 6; no inf, no NaN. Everything above 5 becomes 6, inf and NaN included.
struct E2m1 : SmallFloat<2, 1, Specials::finite> {};

}  // namespace mezzotint
