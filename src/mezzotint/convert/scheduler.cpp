#include "mezzotint/convert/scheduler.h"

#include <algorithm>
#include <chrono>
#include <system_error>

namespace mezzotint::convert {

Scheduler::Scheduler(size_t threads, size_t window, std::function<std::unique_ptr<Job>()> next_job,
                     const std::atomic<bool>* cancel)
    : threads_(std::max<size_t>(threads, 1)),
      window_(std::max<size_t>(window, 1)),
      next_job_(std::move(next_job)),
      cancel_(cancel) {}

Scheduler::Claim Scheduler::claim(std::unique_lock<std::mutex>& lock) {
  while (!stop_) {
    if (cancelled()) {
      stop_ = true;
      break;
    }
    for (const auto& job : active_) {
      if (job->finishing || job->stage == job->stages.size() || job->next == job->stages[job->stage].tiles) continue;
      return {job.get(), job->next++};
    }
    if (!exhausted_ && active_.size() < window_) {
      auto job = next_job_();
      if (!job) {
        exhausted_ = true;
        continue;
      }
      active_.push_back(std::move(job));
      Job& added = *active_.back();
      // A job that starts with an empty stage is moved on at once, as if its last tile had just finished.
      if (added.stages.empty() || added.stages[0].tiles == 0) complete(added, lock);
      continue;
    }
    if (exhausted_ && active_.empty()) break;
    changed_.wait_for(lock, std::chrono::milliseconds(100));
  }
  return {};
}

void Scheduler::complete(Job& job, std::unique_lock<std::mutex>& lock) {
  while (job.stage < job.stages.size() && job.done == job.stages[job.stage].tiles) {
    // Nobody else touches the job now: every tile of the stage is done and the next stage is not open yet.
    const auto finish = std::move(job.stages[job.stage].finish);
    if (finish) {
      job.finishing = true;  // it may add stages: nobody looks at them meanwhile
      lock.unlock();
      try {
        finish();
      } catch (...) {
        lock.lock();
        throw;
      }
      lock.lock();
      job.finishing = false;
    }
    ++job.stage;
    job.next = job.done = 0;
  }
  if (job.stage == job.stages.size()) std::erase_if(active_, [&](const auto& entry) { return entry.get() == &job; });
  changed_.notify_all();
}

void Scheduler::work(size_t worker) {
  std::unique_lock lock(mutex_);
  try {
    while (true) {
      const Claim claimed = claim(lock);
      if (claimed.job == nullptr) break;
      Job& job = *claimed.job;
      const auto& run = job.stages[job.stage].run;
      lock.unlock();
      try {
        run(claimed.tile, worker);
      } catch (...) {
        lock.lock();
        throw;
      }
      lock.lock();
      if (++job.done == job.stages[job.stage].tiles) complete(job, lock);
    }
  } catch (...) {
    fail(std::current_exception());
  }
  --running_;
  changed_.notify_all();
}

void Scheduler::fail(std::exception_ptr error) {
  if (!error_) error_ = std::move(error);
  stop_ = true;
  changed_.notify_all();
}

void Scheduler::start(std::vector<std::thread>& pool) {
  const std::unique_lock lock(mutex_);
  for (size_t i = 0; i < threads_; ++i) {
    try {
      pool.emplace_back([this, i] { work(i); });
      ++running_;
    } catch (const std::system_error&) {
      // Fewer threads do the same work; without any there is nobody to do it.
      if (pool.empty()) fail(std::current_exception());
      return;
    }
  }
}

bool Scheduler::run(const std::function<void()>& tick) {
  std::vector<std::thread> pool;
  pool.reserve(threads_);
  start(pool);
  {
    std::unique_lock lock(mutex_);
    while (running_ > 0) {
      changed_.wait_for(lock, std::chrono::milliseconds(50));
      if (!tick || stop_) continue;
      lock.unlock();
      std::exception_ptr failure;
      try {
        tick();
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      if (failure) fail(failure);
    }
  }
  for (auto& thread : pool) thread.join();
  if (tick && !error_) tick();
  if (error_) std::rethrow_exception(error_);
  return exhausted_ && active_.empty();
}

}  // namespace mezzotint::convert
