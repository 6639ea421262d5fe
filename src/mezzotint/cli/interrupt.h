#pragma once
#include <atomic>

namespace mezzotint::cli {

/// Set by Ctrl-C or SIGTERM while a ScopedInterrupt lives. (A signal handler can reach nothing but a global.)
const std::atomic<bool>& interrupted();

/// Turns the first SIGINT or SIGTERM into a clean stop; a second one ends the program at once.
class ScopedInterrupt {
 public:
  ScopedInterrupt();
  ~ScopedInterrupt();
  ScopedInterrupt(const ScopedInterrupt&) = delete;
  ScopedInterrupt& operator=(const ScopedInterrupt&) = delete;
};

}  // namespace mezzotint::cli
