#include "mezzotint/convert/report/text.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace mezzotint::convert {
namespace {

// Three significant digits without an exponent.
std::string short_number(double value) {
  if (value == 0) return "0";
  const int digits = 2 - static_cast<int>(std::floor(std::log10(std::abs(value))));
  return fmt::format("{:.{}f}", value, std::min(std::max(digits, 0), 12));
}

}  // namespace

std::string size_text(uint64_t bytes) {
  constexpr std::array units{"B", "kB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.{}f} {}", value, value < 99.95 ? 1 : 0, units[unit]);
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0)) return "?";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<uint64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string percent_text(double share) {
  if (std::isnan(share)) return "not a number";
  if (std::isinf(share)) return "infinite";
  return short_number(100 * share) + " %";
}

std::string decibel_text(double decibels) {
  if (std::isinf(decibels)) return decibels > 0 ? "exact" : "none";
  return fmt::format("{:.1f} dB", decibels);
}

std::string count_text(uint64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return short_number(value / 1e9) + " billion";
  if (count >= 1'000'000) return short_number(value / 1e6) + " million";
  return count < 1000 ? fmt::format("{}", count) : fmt::format("{},{:03}", count / 1000, count % 1000);
}

}  // namespace mezzotint::convert
