#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace mezzotint::convert {

/// One step of a job: `tiles` independent pieces of work in any order, then `finish` once. Either may be empty.
struct Stage {
  size_t tiles = 0;
  std::function<void(size_t tile, size_t worker)> run;
  std::function<void()> finish;
};

/// Stages run one after another; a job may add stages to itself in `finish` (its own vector, behind the current one).
struct Job {
  std::vector<Stage> stages;

 private:
  friend class Scheduler;
  size_t stage = 0, next = 0, done = 0;
  bool finishing = false;
};

/// Runs jobs in order on a few threads. Tiles of one job run in parallel; while a stage's last tiles finish, idle
/// threads start on the next jobs. At most `window` jobs are alive at a time, which bounds memory.
class Scheduler {
 public:
  /// `next_job` is called by one thread at a time; null = no more.
  Scheduler(size_t threads, size_t window, std::function<std::unique_ptr<Job>()> next_job,
            const std::atomic<bool>* cancel);

  /// Returns when all jobs are done, or after a cancellation (false). Rethrows the first exception of any tile once all
  /// threads have stopped. `tick` is called on the calling thread about every 50 ms and at the end.
  bool run(const std::function<void()>& tick);

 private:
  struct Claim {
    Job* job = nullptr;
    size_t tile = 0;
  };
  void work(size_t worker);
  Claim claim(std::unique_lock<std::mutex>& lock);
  void complete(Job& job, std::unique_lock<std::mutex>& lock);
  void start(std::vector<std::thread>& pool);
  void fail(std::exception_ptr error);  // under the lock
  bool cancelled() const { return cancel_ != nullptr && cancel_->load(std::memory_order_relaxed); }

  size_t threads_, window_;
  std::function<std::unique_ptr<Job>()> next_job_;
  const std::atomic<bool>* cancel_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<Job>> active_;
  bool exhausted_ = false;
  bool stop_ = false;
  size_t running_ = 0;
  std::exception_ptr error_;
};

}  // namespace mezzotint::convert
