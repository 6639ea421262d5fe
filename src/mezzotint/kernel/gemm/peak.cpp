#include "mezzotint/kernel/gemm/peak.h"

namespace mezzotint::kernel {
namespace {

#if defined(__x86_64__)
using Int8Levels = IsaList<Isa::amx, Isa::avx512vnni, Isa::avxvnni, Isa::avx2>;
using Bf16Levels = IsaList<Isa::amx, Isa::avx512bf16>;
#endif

#if defined(__x86_64__)
/// As with_isa, but there may be no level at all.
template <Isa... I, class F>
int64_t best_of(IsaList<I...>, F&& f) {
  int64_t result = 0;
  const bool found = ((enabled(I) && (result = f.template operator()<I>(), true)) || ...);
  return found ? result : 0;
}
#endif

}  // namespace

int64_t peak_int8([[maybe_unused]] int64_t rounds) {
#if defined(__x86_64__)
  return best_of(Int8Levels{}, [&]<Isa I> { return peak_int8<I>(rounds); });
#else
  return 0;
#endif
}

int64_t peak_bf16([[maybe_unused]] int64_t rounds) {
#if defined(__x86_64__)
  return best_of(Bf16Levels{}, [&]<Isa I> { return peak_bf16<I>(rounds); });
#else
  return 0;
#endif
}

int64_t peak_f32(int64_t rounds) {
  return with_isa([&]<Isa I> { return peak_f32<I>(rounds); });
}

}  // namespace mezzotint::kernel
