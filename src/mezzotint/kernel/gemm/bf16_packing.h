#pragma once
#include "mezzotint/kernel/gemm/float_kernels.h"
#include "mezzotint/kernel/isa_elements.h"

/// What the kernels of levels avx512bf16 and amx share: everything but the multiplication.
namespace mezzotint::kernel {

/// FloatKernels::dot_stored for e4m3 and e5m2 without block scales.
bool dot_stored(const Operand& w, int64_t n0, int64_t n, const void* x, int64_t x_stride, int64_t count, float* sums,
                int64_t sums_stride);

/// `multiply` and what describes its tile are left empty.
FloatKernels bf16_packing();

}  // namespace mezzotint::kernel
