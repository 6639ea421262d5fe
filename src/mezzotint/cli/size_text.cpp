#include "mezzotint/cli/size_text.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>

#include "mezzotint/cli/context.h"

namespace mezzotint::cli {

uint64_t parse_size(std::string_view text) {
  std::string clean;
  for (const char c : text)
    if (c != ' ') clean += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  double number = 0;
  const auto [end, error] =
      std::from_chars(clean.data(), clean.data() + clean.size(), number, std::chars_format::fixed);
  const std::string unit(end, static_cast<const char*>(clean.data() + clean.size()));
  constexpr std::string_view letters = "KMGT";
  double factor = 0;
  if (unit.empty() || unit == "B") {
    factor = 1;
  } else if (const size_t power = letters.find(unit[0]); power != std::string_view::npos) {
    const std::string rest = unit.substr(1);
    if (rest.empty() || rest == "IB") factor = std::pow(1024.0, static_cast<double>(power + 1));
    if (rest == "B") factor = std::pow(1000.0, static_cast<double>(power + 1));
  }
  const double bytes = number * factor;
  if (error != std::errc() || factor == 0 || !(bytes >= 0) || bytes > 9e18)
    throw UsageError(fmt::format("'{}' is not a size. Write it like 512M, 9.5GiB or 1GB.", text));
  return static_cast<uint64_t>(bytes);
}

}  // namespace mezzotint::cli
