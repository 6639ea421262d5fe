#pragma once
#include <cstdint>

#include "mezzotint/kernel/isa.h"

/// Loops over registers alone: the most that the instructions of the products can do on this machine, against which
/// benchmarks hold the products. An operation is a multiplication or an addition.
namespace mezzotint::kernel {

/// Runs `rounds` rounds of the best enabled level's instructions and returns how many operations that was; 0 where no
/// level of the kind is enabled. Time it with rounds enough for milliseconds; the best of several is the peak.
int64_t peak_int8(int64_t rounds);  ///< AMX, VNNI of either width, or 16-bit products of AVX2
int64_t peak_bf16(int64_t rounds);  ///< AMX or AVX-512 BF16
int64_t peak_f32(int64_t rounds);   ///< fused multiply-add; without AVX2 products and sums

// One level of the above.
template <Isa I>
int64_t peak_int8(int64_t rounds);
template <Isa I>
int64_t peak_bf16(int64_t rounds);
template <Isa I>
int64_t peak_f32(int64_t rounds);

}  // namespace mezzotint::kernel
