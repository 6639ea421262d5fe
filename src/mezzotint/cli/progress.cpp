#include "mezzotint/cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/terminal.h"

namespace mezzotint::cli {
namespace {

constexpr auto kBarInterval = std::chrono::milliseconds(100);
constexpr auto kLineInterval = std::chrono::seconds(2);
constexpr int kWidestBar = 24;

}  // namespace

ProgressDisplay::ProgressDisplay(std::string_view verb, bool quiet)
    : verb_(verb), quiet_(quiet), terminal_(is_terminal(stderr)), start_(Clock::now()), last_(start_) {}

ProgressDisplay::~ProgressDisplay() {
  clear();
}

void ProgressDisplay::update(uint64_t bytes_done, uint64_t bytes_total, std::string_view current,
                             std::optional<double> share_done) {
  if (quiet_) return;
  const double of_bytes = bytes_total > 0 ? static_cast<double>(bytes_done) / static_cast<double>(bytes_total) : 1;
  const double fraction = share_done.value_or(of_bytes);
  const auto now = Clock::now();
  const bool first = !started_;
  if (first) {
    started_ = true;
    start_ = now;
    first_ = bytes_done;
    first_share_ = fraction;
  }
  // The bar is there from the start; lines only come for runs that take a while.
  if (!(first && terminal_) &&
      now - last_ < (terminal_ ? Clock::duration(kBarInterval) : Clock::duration(kLineInterval)))
    return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(bytes_done - first_) / seconds : 0;
  const double shares = fraction - first_share_;
  const std::string left = shares > 0 ? duration_text(seconds / shares * std::max(1 - fraction, 0.0)) : "?";
  const std::string numbers = fmt::format("{:3.0f}% {} of {}, {:.0f} MB/s, {} left", 100 * fraction,
                                          size_text(bytes_done), size_text(bytes_total), rate / 1e6, left);
  if (terminal_)
    draw_bar(numbers, fraction, current);
  else
    fmt::print(stderr, "{}: {}\n", verb_, numbers);
}

void ProgressDisplay::draw_bar(const std::string& numbers, double fraction, std::string_view current) {
  const int width = std::max(terminal_width() - 1, 1);
  // The numbers matter more than the bar, the bar more than the name of the tensor.
  const int room = width - static_cast<int>(verb_.size() + numbers.size()) - 4;
  const int bar = std::clamp(room, 4, kWidestBar);
  const int full = std::clamp(static_cast<int>(fraction * bar), 0, bar);
  std::string line = fmt::format("{} [{:=<{}}{: <{}}] {}  {}", verb_, "", full, "", bar - full, numbers, current);
  if (line.size() > static_cast<size_t>(width)) line.resize(static_cast<size_t>(width));
  fmt::print(stderr, "\r{}\033[K", line);
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressDisplay::clear() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace mezzotint::cli
