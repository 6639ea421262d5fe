#pragma once
#include <cstdint>
#include <type_traits>

/// The only place of this room that starts threads (OpenMP). Drivers of matrix products split their work into tasks
/// here; kernels compute what they are told. A result never depends on the number of threads: every element is the work
/// of one task, and tasks are the same for every number of threads or differ only in which elements they hold.
namespace mezzotint::kernel {

/// How many threads `requested` means: itself, and for 0 the processors that this process may use.
int gemm_threads(int requested);

namespace detail {
using Task = void (*)(void* context, int64_t task, int thread);
void run_tasks(int threads, int64_t tasks, Task task, void* context);
}  // namespace detail

/// Calls f(task, thread) once for every task in [0, tasks); returns when all are done. `thread` lies in [0, threads)
/// and is held by one caller at a time: it is the index of that thread's scratch. Tasks are handed out in order to
/// whoever is free. f must not throw; an instruction-set cap (ScopedIsaCap) does not reach it, so choose the level
/// before. With one thread or one task f runs on the calling thread.
template <class F>
void parallel_tasks(int threads, int64_t tasks, F&& f) {
  using Function = std::remove_reference_t<F>;
  const auto call = [](void* context, int64_t task, int thread) { (*static_cast<Function*>(context))(task, thread); };
  detail::run_tasks(threads, tasks, call, const_cast<std::remove_const_t<Function>*>(&f));
}

/// parallel_tasks over short runs of the rows of a matrix: calls f(first row, rows).
template <class F>
void parallel_row_runs(int64_t rows, int threads, F&& f) {
  constexpr int64_t kRun = 16;
  parallel_tasks(threads, (rows + kRun - 1) / kRun, [&](int64_t run, int) {
    const int64_t row0 = run * kRun;
    f(row0, rows - row0 < kRun ? rows - row0 : kRun);
  });
}

}  // namespace mezzotint::kernel
