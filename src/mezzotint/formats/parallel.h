#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "mezzotint/base/round_up.h"

/// Threads of the in-memory drivers. Kernels have none: what sits beside them splits the work.
namespace mezzotint::formats {

/// The number to use where a caller says 0: the cores this process may run on (at least 1).
int default_threads();

/// Calls body(0) ... body(count - 1) from up to `threads` threads (0 = default_threads()), the calling one included.
/// Indices are handed out in order, one at a time. If bodies throw, no further index is handed out, and the exception
/// of the lowest index that threw is rethrown once every thread has stopped. With one thread or one index nothing is
/// started.
void parallel_for(size_t count, int threads, const std::function<void(size_t)>& body);

/// parallel_for over short runs of the rows of a matrix: calls f(first row, rows).
template <class F>
void for_row_runs(int64_t rows, int threads, F&& f) {
  constexpr int64_t kRun = 16;
  parallel_for(static_cast<size_t>(divide_up(rows, kRun)), threads, [&](size_t run) {
    const int64_t row0 = static_cast<int64_t>(run) * kRun;
    f(row0, std::min(kRun, rows - row0));
  });
}

}  // namespace mezzotint::formats
