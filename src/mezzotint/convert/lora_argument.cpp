#include "mezzotint/convert/lora_argument.h"

#include <charconv>
#include <filesystem>
#include <system_error>

namespace mezzotint::convert {

std::optional<double> parse_strength(std::string_view text) {
  const char *begin = text.data(), *end = begin + text.size();
  if (begin != end && *begin == '+') ++begin;
  double strength = 0;
  const auto [at, failure] = std::from_chars(begin, end, strength);
  if (failure != std::errc() || at != end) return std::nullopt;
  return strength;
}

MergeLora parse_lora(const std::string& text) {
  const size_t colon = text.rfind(':');
  std::error_code ignored;
  if (colon == std::string::npos || colon == 0 || std::filesystem::exists(text, ignored)) return {text, 1};
  const std::optional<double> strength = parse_strength(std::string_view(text).substr(colon + 1));
  if (!strength) return {text, 1};
  return {text.substr(0, colon), *strength};
}

}  // namespace mezzotint::convert
