#pragma once
// Included by ISA files.
#include "mezzotint/kernel/gemm/peak.h"
#include "mezzotint/kernel/gemm/unroll.h"
#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::kernel {
namespace {

/// `rounds` times 12 independent accumulators, each advanced by step(acc): more than any machine's latency times
/// instructions per cycle, fewer than its registers. Returns how often step ran.
template <class Vector, class Step>
[[gnu::always_inline]] inline int64_t peak_loop(int64_t rounds, Vector begin, Step step) {
  constexpr int kAccumulators = 12;
  Vector acc[kAccumulators];
  unrolled<kAccumulators>([&]<int I>() MEZZOTINT_UNROLLED {
    acc[I] = begin;
    asm volatile("" : "+v"(acc[I]));  // not the same value for all that the compiler knows
  });
  for (int64_t round = 0; round < rounds; ++round)
    unrolled<kAccumulators>([&]<int I>() MEZZOTINT_UNROLLED { acc[I] = step(acc[I]); });
  unrolled<kAccumulators>([&]<int I>() MEZZOTINT_UNROLLED { asm volatile("" : : "v"(acc[I])); });
  return rounds * kAccumulators;
}

}  // namespace
}  // namespace mezzotint::kernel
