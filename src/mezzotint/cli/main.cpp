#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <csignal>

#include "mezzotint/cli/run.h"

int main(int argc, char** argv) {
#if defined(M_ARENA_MAX)
  // glibc reserves 64 MiB of address space per thread otherwise; buffers are few and large, one arena is enough.
  mallopt(M_ARENA_MAX, 1);
#endif
#if defined(SIGXFSZ)
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error to report, not a death
#endif
  return mezzotint::cli::run(argc, argv);
}
