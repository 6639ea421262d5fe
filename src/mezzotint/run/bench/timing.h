#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <vector>

namespace mezzotint::run::bench {

/// Times of one contender, a turn each, in milliseconds.
struct Timing {
  std::vector<double> turns;
  double best() const;
  double median() const;
};

struct Clock {
  c10::Device device;
  double seconds;         ///< at least, of all contenders together
  int rounds;             ///< at least
  bool cpu_time = false;  ///< of the calling thread, where others use the machine too
};

/// Times contenders in turn (A B C A B C ...), so that whatever else the machine does hits all of them, after one run
/// of each that does not count. On a GPU a turn is as many runs as take 2 ms, and ends when the device has finished.
std::vector<Timing> take_turns(const std::vector<std::function<void()>>& contenders, const Clock& clock);

/// The median over the rounds of (time of `base` in that round / time of `other`).
double speedup(const Timing& base, const Timing& other);

}  // namespace mezzotint::run::bench
