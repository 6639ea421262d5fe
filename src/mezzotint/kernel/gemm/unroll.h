#pragma once
// Included by ISA files. g++ 12 unrolls loops after it has decided which arrays live in registers, so accumulators that
// loops index are spilled; with constant indices from the start they are not.
namespace mezzotint::kernel {
namespace {

#define MEZZOTINT_UNROLLED __attribute__((always_inline))

template <int I, int N, class F>
[[gnu::always_inline]] inline void unrolled_from(F&& f) {
  if constexpr (I < N) {
    f.template operator()<I>();
    unrolled_from<I + 1, N>(f);
  }
}

/// f.operator()<0>(), ..., f.operator()<N - 1>(); write f as [&]<int I>() MEZZOTINT_UNROLLED { ... }.
template <int N, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
  unrolled_from<0, N>(f);
}

}  // namespace
}  // namespace mezzotint::kernel
