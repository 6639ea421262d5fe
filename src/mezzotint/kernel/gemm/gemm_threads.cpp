#include "mezzotint/kernel/gemm/gemm_threads.h"

#include <omp.h>

#include <algorithm>
#include <cassert>

namespace mezzotint::kernel {

int gemm_threads(int requested) {
  assert(requested >= 0);
  return requested > 0 ? requested : std::max(1, omp_get_num_procs());
}

namespace detail {

void run_tasks(int threads, int64_t tasks, Task task, void* context) {
  const int team = static_cast<int>(std::min<int64_t>(gemm_threads(threads), tasks));
  if (team <= 1) {
    for (int64_t i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
  for (int64_t i = 0; i < tasks; ++i) task(context, i, omp_get_thread_num());
}

}  // namespace detail
}  // namespace mezzotint::kernel
