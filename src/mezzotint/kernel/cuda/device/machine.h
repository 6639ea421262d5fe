#pragma once
#include <cstdint>

/// Device code is written once and runs on two machines. A kernel's body is a plain function template
///
///     template <class Machine> MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared& shared);
///
/// which every thread of a block executes. On a GPU the machine is `Hardware` (hardware.h): each member is one
/// instruction. In the tests it is an emulator whose threads are fibres of one host thread, so that the same source,
/// shared memory and barriers included, is checked where there is no GPU. Every body says
///
///     kThreads, kMinBlocks    __launch_bounds__
///     Shared                  what the block shares, uninitialised
///
/// and uses of its machine
///
///     uint32_t thread(), block_x(), block_y()       thread in block, block in grid
///     void sync()                                   all threads of the block
///     uint32_t warp_max(uint32_t x, width)          maximum over aligned groups of `width` lanes (a power of two <=
///     32) void atomic_max(uint32_t* p, uint32_t x) void load_matrices(uint32_t (&r)[4], p)       ldmatrix.x4: lane l
///     passes the address of 16 bytes, row l % 8 of
///                                                   matrix l / 8; r[j] = bytes 4 (l % 4) ... of row l / 4 of matrix j
///     void mma(int32_t (&d)[4], a[4], b0, b1)       d += A * B, mma.m16n8k32 s8: with g = lane / 4 and t = lane % 4
///                                                     a[i] = A[g + 8 (i % 2)][16 (i / 2) + 4 t ... + 3]
///                                                     b_i = B[16 i + 4 t ... + 3][g]
///                                                     d[i] = D[g + 8 (i / 2)][2 t + i % 2]
///     void copy_async(shared, global, bytes)        cp.async of 16 bytes, of which the last 16 - bytes are zeros;
///                                                   done after commit() and wait<at most this many groups pending>()
///     float fma(a, b, c)
///
/// The collectives need all 32 lanes, so threads outside the matrix take part with neutral values.
///
/// This folder includes nothing outside itself but the scalar definitions in base/, which are plain constexpr functions
/// for host and device: one definition for both, so that bytes agree.
#if defined(__CUDACC__)
#define MEZZOTINT_DEVICE __device__ __forceinline__
#define MEZZOTINT_UNROLL _Pragma("unroll")
#else
#define MEZZOTINT_DEVICE inline
#define MEZZOTINT_UNROLL
#endif

namespace mezzotint::kernel::cuda::device {

constexpr uint32_t kWarp = 32;

/// What a launch needs beside the arguments.
struct Grid {
  uint32_t x = 1, y = 1;
};

MEZZOTINT_DEVICE uint32_t smaller(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

/// Bytes that travel in one instruction where the addresses allow it.
template <int kBytes>
struct __attribute__((may_alias, aligned(kBytes))) Packet {
  uint32_t word[kBytes / 4];
};

/// Whether `p` may be read or written kBytes at once.
template <int kBytes>
MEZZOTINT_DEVICE bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % kBytes == 0;
}

}  // namespace mezzotint::kernel::cuda::device
