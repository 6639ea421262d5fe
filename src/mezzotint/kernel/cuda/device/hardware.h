#pragma once
#include "mezzotint/kernel/cuda/device/machine.h"

/// The machine of machine.h on a GPU of compute capability 8.0 or newer. Compiled by nvcc alone.
namespace mezzotint::kernel::cuda::device {

struct Hardware {
  MEZZOTINT_DEVICE uint32_t thread() const { return threadIdx.x; }
  MEZZOTINT_DEVICE uint32_t block_x() const { return blockIdx.x; }
  MEZZOTINT_DEVICE uint32_t block_y() const { return blockIdx.y; }
  MEZZOTINT_DEVICE void sync() { __syncthreads(); }
  MEZZOTINT_DEVICE uint32_t warp_max(uint32_t x, uint32_t width) {
    for (uint32_t step = width / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(0xFFFFFFFFu, x, step));
    return x;
  }
  MEZZOTINT_DEVICE void atomic_max(uint32_t* p, uint32_t x) { atomicMax(p, x); }
  MEZZOTINT_DEVICE void load_matrices(uint32_t (&r)[4], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
  }
  MEZZOTINT_DEVICE void mma(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  MEZZOTINT_DEVICE void copy_async(void* shared, const void* global, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
  }
  MEZZOTINT_DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int kPending>
  MEZZOTINT_DEVICE void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  }
  MEZZOTINT_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

 private:
  MEZZOTINT_DEVICE static uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
  }
};

/// The thin shell around a body.
template <class Body>
__global__ void __launch_bounds__(Body::kThreads, Body::kMinBlocks) kernel(const typename Body::Args args) {
  __shared__ typename Body::Shared shared;
  Hardware machine;
  Body::run(machine, args, shared);
}

}  // namespace mezzotint::kernel::cuda::device
