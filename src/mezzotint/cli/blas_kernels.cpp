#include <cstdlib>

// OpenBLAS chooses its kernels when the program starts. Debian's does not know processors with AVX-512 that came after
// it and falls back to AVX2, at half the speed. Only the environment tells it otherwise, and only before it looks:
// constructors with a priority run first. A choice of the user's stays.
namespace {

#if defined(__x86_64__)
[[gnu::constructor(101)]] void choose_blas_kernels() {
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
}
#endif

}  // namespace
