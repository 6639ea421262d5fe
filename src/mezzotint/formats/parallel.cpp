#include "mezzotint/formats/parallel.h"

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace mezzotint::formats {

int default_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(size_t count, int threads, const std::function<void(size_t)>& body) {
  if (threads <= 0) threads = default_threads();
  const size_t workers = std::min(count, static_cast<size_t>(threads));
  if (workers <= 1) {
    for (size_t i = 0; i < count; ++i) body(i);
    return;
  }

  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::exception_ptr failure;
  size_t failed_index = count;
  const auto work = [&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed_index) {
          failed_index = i;
          failure = std::current_exception();
        }
        stop = true;
      }
    }
  };

  std::vector<std::jthread> pool;
  pool.reserve(workers - 1);
  try {
    while (pool.size() + 1 < workers) pool.emplace_back(work);
  } catch (const std::system_error&) {
    // A machine that refuses more threads still gets the work done, only slower.
  }
  work();
  pool.clear();  // joins
  if (failure) std::rethrow_exception(failure);
}

}  // namespace mezzotint::formats
