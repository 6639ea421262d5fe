#include "mezzotint/convert/calibration/input_scale.h"

#include <charconv>
#include <cmath>
#include <string>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {

std::optional<double> parse_input_scale(std::string_view text) {
  if (text == "amax") return 100;
  if (text == "none") return std::nullopt;
  double percent = 0;
  const char* last = text.data() + text.size();
  if (text.starts_with('p')) {
    const auto [end, error] = std::from_chars(text.data() + 1, last, percent, std::chars_format::fixed);
    if (error == std::errc() && end == last && percent > 0 && percent <= 100) return percent;
  }
  throw Error({.name = "bad-option",
               .problem = "unknown rule for activation scales",
               .expected = "amax, a percentile such as p99.9, or none",
               .found = std::string(text)});
}

std::optional<float> input_scale(const LayerStatistics& statistics, const formats::Format& format, double percentile) {
  if (format.input_scale_divisor == 0) return std::nullopt;
  const float scale = statistics.percentile(percentile) / format.input_scale_divisor;
  return std::isnormal(scale) ? std::optional(scale) : std::nullopt;
}

}  // namespace mezzotint::convert
