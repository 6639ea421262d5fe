#pragma once
#include <cstdint>

/// Scalar definitions of the number formats are plain constexpr functions that every kernel inlines: CPU kernels at
/// each instruction-set level and CUDA kernels alike. They are always inlined, so an object file compiled with
/// -mavx512f holds no weak copy of them that the linker could keep for everybody, not even at -O0. No std:: function
/// may be called here for the same reason.
#if defined(__CUDACC__)
#define MEZZOTINT_SCALAR __host__ __device__ __forceinline__ constexpr
#else
#define MEZZOTINT_SCALAR [[gnu::always_inline]] inline constexpr
#endif

namespace mezzotint {

MEZZOTINT_SCALAR uint32_t float_bits(float x) {
  return __builtin_bit_cast(uint32_t, x);
}
MEZZOTINT_SCALAR float float_from_bits(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}

constexpr int32_t kFloatInfBits = 0x7F800000;  ///< magnitudes above are NaN
constexpr int32_t kFloatMagnitude = 0x7FFFFFFF;

}  // namespace mezzotint
