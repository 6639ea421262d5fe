#include "mezzotint/convert/lora_argument.h"

#include <charconv>
#include <filesystem>
#include <system_error>

namespace mezzotint::convert {

MergeLora parse_lora(const std::string& text) {
  const size_t colon = text.rfind(':');
  std::error_code ignored;
  if (colon == std::string::npos || colon == 0 || std::filesystem::exists(text, ignored)) return {text, 1};
  const char *begin = text.data() + colon + 1, *end = text.data() + text.size();
  if (begin != end && *begin == '+') ++begin;
  double strength = 0;
  const auto [at, failure] = std::from_chars(begin, end, strength);
  if (failure != std::errc() || at != end) return {text, 1};
  return {text.substr(0, colon), strength};
}

}  // namespace mezzotint::convert
