#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "mezzotint/cli/run.h"

int main(int argc, char** argv) {
#if defined(M_ARENA_MAX)
  // glibc reserves 64 MiB of address space per thread otherwise; buffers are few and large, one arena is enough.
  mallopt(M_ARENA_MAX, 1);
#endif
  return mezzotint::cli::run(argc, argv);
}
