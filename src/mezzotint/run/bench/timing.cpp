#include "mezzotint/run/bench/timing.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <time.h>

#include <algorithm>
#include <cmath>

namespace mezzotint::run::bench {
namespace {

constexpr int kMostRounds = 2000;
constexpr double kTurnOnDevice = 2.0;  // ms
constexpr double kMostRuns = 200;

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock) : clock_(clock) {}

  /// Milliseconds of one run out of `runs`.
  double time(const std::function<void()>& run, int runs) const {
    finish();
    const double start = now();
    for (int i = 0; i < runs; ++i) run();
    finish();
    return (now() - start) / runs;
  }

 private:
  void finish() const {
    const c10::Device& device = clock_.device;
    if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  }
  double now() const {
    timespec time{};
    clock_gettime(clock_.cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return 1e3 * static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_nsec);
  }
  const Clock& clock_;
};

}  // namespace

double Timing::best() const {
  return *std::min_element(turns.begin(), turns.end());
}
double Timing::median() const {
  return median_of(turns);
}

std::vector<Timing> take_turns(const std::vector<std::function<void()>>& contenders, const Clock& clock) {
  const Stopwatch watch(clock);
  std::vector<Timing> timings(contenders.size());
  std::vector<int> runs(contenders.size(), 1);
  for (size_t i = 0; i < contenders.size(); ++i) {
    const double once = watch.time(contenders[i], 1);
    if (!clock.device.is_cpu()) runs[i] = static_cast<int>(std::clamp(std::ceil(kTurnOnDevice / once), 1.0, kMostRuns));
  }
  double passed = 0;  // ms
  for (int round = 0; round < kMostRounds && (round < clock.rounds || passed < 1e3 * clock.seconds); ++round)
    for (size_t i = 0; i < contenders.size(); ++i) {
      timings[i].turns.push_back(watch.time(contenders[i], runs[i]));
      passed += timings[i].turns.back() * runs[i];
    }
  return timings;
}

double speedup(const Timing& base, const Timing& other) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(base.turns.size(), other.turns.size()); ++i)
    ratios.push_back(base.turns[i] / other.turns[i]);
  return median_of(std::move(ratios));
}

}  // namespace mezzotint::run::bench
