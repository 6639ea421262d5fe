#include "mezzotint/formats/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mezzotint::formats {
namespace {

TEST(ParallelFor, VisitsEveryIndexOnce) {
  for (const int threads : {0, 1, 2, 5, 64})
    for (const size_t count : {size_t{0}, size_t{1}, size_t{3}, size_t{1000}}) {
      std::vector<std::atomic<int>> visits(count);
      parallel_for(count, threads, [&](size_t i) { ++visits[i]; });
      for (size_t i = 0; i < count; ++i) ASSERT_EQ(visits[i], 1) << i << " of " << count << ", " << threads;
    }
}

TEST(ParallelFor, OneThreadIsTheCaller) {
  const auto caller = std::this_thread::get_id();
  parallel_for(3, 1, [&](size_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(ParallelFor, UsesSeveralThreads) {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::atomic<int> arrived{0};
  parallel_for(2, 2, [&](size_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();  // returns only if both run at once
    const std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(seen.size(), 2u);
}

TEST(ParallelFor, RethrowsTheFirstExceptionAndStops) {
  for (const int threads : {1, 4}) {
    std::atomic<size_t> visits{0};
    try {
      parallel_for(100000, threads, [&](size_t i) {
        ++visits;
        if (i == 5) throw std::runtime_error("at 5");
      });
      FAIL() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "at 5");
    }
    EXPECT_LT(visits, 100000u);
  }
}

}  // namespace
}  // namespace mezzotint::formats
