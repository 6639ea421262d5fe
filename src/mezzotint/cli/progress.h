#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mezzotint::cli {

/// One progress display for a whole job, on stderr: a bar that is redrawn on a terminal, a plain line every few seconds
/// elsewhere, nothing when quiet.
class ProgressDisplay {
 public:
  ProgressDisplay(std::string_view verb, bool quiet);
  ~ProgressDisplay();  ///< clears the bar
  ProgressDisplay(const ProgressDisplay&) = delete;
  ProgressDisplay& operator=(const ProgressDisplay&) = delete;

  /// Called as often as anyone likes; draws at most ten times a second.
  /// `share_done` is of the work, where that does not go with the bytes.
  void update(uint64_t bytes_done, uint64_t bytes_total, std::string_view current,
              std::optional<double> share_done = std::nullopt);
  /// Takes the bar away, so that other lines can be printed.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  void draw_bar(const std::string& numbers, double fraction, std::string_view current);

  std::string verb_;
  bool quiet_, terminal_, drawn_ = false, started_ = false;
  Clock::time_point start_, last_;
  uint64_t first_ = 0;  ///< bytes that were done at the first update (a resumed run), left out of the rate
  double first_share_ = 0;
};

}  // namespace mezzotint::cli
