#include "mezzotint/convert/scheduler.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace mezzotint::convert {
namespace {

/// Hands out `count` jobs that `make` fills in.
std::function<std::unique_ptr<Job>()> jobs(size_t count, std::function<void(Job&, size_t)> make) {
  return [next = size_t{0}, count, make = std::move(make)]() mutable -> std::unique_ptr<Job> {
    if (next == count) return nullptr;
    auto job = std::make_unique<Job>();
    make(*job, next++);
    return job;
  };
}

TEST(Scheduler, RunsEveryTileOfEveryStageOnceAndInOrder) {
  for (const size_t threads : {1, 2, 5})
    for (const size_t window : {1, 2, 7}) {
      std::atomic<int> wrong{0};
      std::vector<std::vector<std::atomic<int>>> counts;
      for (int job = 0; job < 40; ++job) counts.emplace_back(3);
      std::atomic<size_t> alive{0}, most{0};
      Scheduler scheduler(
          threads, window,
          jobs(40,
               [&](Job& job, size_t index) {
                 const size_t now = ++alive;
                 most = std::max(most.load(), now);
                 const std::vector<size_t> tiles = {index % 4, index % 3 == 0 ? size_t{0} : size_t{5}, index % 2};
                 for (size_t stage = 0; stage < 3; ++stage)
                   job.stages.push_back({.tiles = tiles[stage],
                                         .run =
                                             [&, index, stage](size_t, size_t worker) {
                                               if (worker >= threads) ++wrong;
                                               ++counts[index][stage];
                                             },
                                         .finish =
                                             [&, index, stage, tiles] {
                                               if (counts[index][stage] != static_cast<int>(tiles[stage])) ++wrong;
                                               for (size_t later = stage + 1; later < 3; ++later)
                                                 if (counts[index][later] != 0) ++wrong;
                                               if (stage == 2) --alive;
                                             }});
               }),
          nullptr);
      int ticks = 0;
      EXPECT_TRUE(scheduler.run([&] { ++ticks; }));
      EXPECT_EQ(wrong, 0);
      EXPECT_GT(ticks, 0);
      EXPECT_LE(most, window);
      for (size_t index = 0; index < 40; ++index) {
        EXPECT_EQ(counts[index][0], static_cast<int>(index % 4));
        EXPECT_EQ(counts[index][1], index % 3 == 0 ? 0 : 5);
      }
    }
}

TEST(Scheduler, NothingToDoIsDone) {
  EXPECT_TRUE(Scheduler(3, 2, jobs(0, {}), nullptr).run({}));
  EXPECT_TRUE(Scheduler(2, 2, jobs(5, [](Job&, size_t) {}), nullptr).run({}));
}

TEST(Scheduler, TilesOfOneJobRunInParallel) {
  std::atomic<int> inside{0};
  bool met = false;
  std::mutex mutex;
  Scheduler scheduler(2, 1,
                      jobs(1,
                           [&](Job& job, size_t) {
                             job.stages.push_back({.tiles = 2, .run = [&](size_t, size_t) {
                                                     ++inside;
                                                     for (int i = 0; i < 2000 && inside < 2; ++i)
                                                       std::this_thread::sleep_for(std::chrono::milliseconds(1));
                                                     const std::lock_guard lock(mutex);
                                                     met = met || inside == 2;
                                                   }});
                           }),
                      nullptr);
  EXPECT_TRUE(scheduler.run({}));
  EXPECT_TRUE(met);
}

TEST(Scheduler, AStageMayBeAddedWhileItsJobRuns) {
  std::atomic<int> late{0};
  Scheduler scheduler(
      3, 2,
      jobs(9,
           [&](Job& job, size_t) {
             job.stages.push_back({.tiles = 2,
                                   .run = [](size_t, size_t) {},
                                   .finish =
                                       [&job, &late] {
                                         for (int i = 0; i < 20; ++i)
                                           job.stages.push_back(
                                               {.tiles = 1, .run = [&late](size_t, size_t) { ++late; }});
                                       }});
           }),
      nullptr);
  EXPECT_TRUE(scheduler.run({}));
  EXPECT_EQ(late, 180);
}

TEST(Scheduler, ExceptionsComeOutWhereverTheyWereThrown) {
  for (const size_t threads : {1, 4})
    for (const std::string where : {"run", "finish", "first finish", "next_job", "tick"}) {
      std::atomic<int> after{0};
      auto make = [&](Job& job, size_t index) {
        if (where == "next_job" && index == 3) throw std::runtime_error(where);
        job.stages.push_back({.tiles = where == "first finish" ? size_t{0} : size_t{3},
                              .run =
                                  [&, index](size_t tile, size_t) {
                                    if (where == "run" && index == 3 && tile == 1) throw std::runtime_error(where);
                                    std::this_thread::sleep_for(
                                        std::chrono::microseconds(where == "tick" ? 5000 : 100));
                                    if (index > 50) ++after;
                                  },
                              .finish =
                                  [&, index] {
                                    if (where.ends_with("finish") && index == 3) throw std::runtime_error(where);
                                  }});
      };
      Scheduler scheduler(threads, 2, jobs(1000, make), nullptr);
      try {
        scheduler.run([&] {
          if (where == "tick") throw std::runtime_error(where);
        });
        ADD_FAILURE() << where;
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(error.what(), where);
      }
      EXPECT_LT(after, 2000) << where << ": work went on";
    }
}

TEST(Scheduler, CancellingStopsBetweenTiles) {
  for (const size_t threads : {1, 4}) {
    std::atomic<bool> cancel{false};
    std::atomic<int> tiles{0}, finished{0};
    Scheduler scheduler(threads, 2,
                        jobs(100,
                             [&](Job& job, size_t) {
                               job.stages.push_back({.tiles = 10,
                                                     .run =
                                                         [&](size_t, size_t) {
                                                           if (++tiles == 25) cancel = true;
                                                         },
                                                     .finish = [&] { ++finished; }});
                             }),
                        &cancel);
    EXPECT_FALSE(scheduler.run({}));
    EXPECT_GE(tiles, 25);
    EXPECT_LT(tiles, 25 + 8);
    EXPECT_LT(finished, 5);
  }
  std::atomic<bool> cancel{true};
  std::atomic<int> ran{0};
  Scheduler never(
      2, 2,
      jobs(3, [&](Job& job, size_t) { job.stages.push_back({.tiles = 1, .run = [&](size_t, size_t) { ++ran; }}); }),
      &cancel);
  EXPECT_FALSE(never.run({}));
  EXPECT_EQ(ran, 0);
}

}  // namespace
}  // namespace mezzotint::convert
