#include "mezzotint/io/text.h"

#include <cstdint>

namespace mezzotint::io {
namespace {

constexpr char kHex[] = "0123456789abcdef";

/// Length of the well-formed sequence at the start of `text`; 0 if there is none. Table 3-7 of the Unicode standard.
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto in = [](uint8_t value, uint8_t low, uint8_t high) { return value >= low && value <= high; };
  const uint8_t first = byte(0);
  const auto tail = [&](size_t i) { return in(byte(i), 0x80, 0xbf); };
  if (first < 0x80) return 1;
  if (in(first, 0xc2, 0xdf)) return tail(1) ? 2 : 0;
  if (in(first, 0xe0, 0xef)) {
    const uint8_t low = first == 0xe0 ? 0xa0 : 0x80;
    const uint8_t high = first == 0xed ? 0x9f : 0xbf;
    return in(byte(1), low, high) && tail(2) ? 3 : 0;
  }
  if (in(first, 0xf0, 0xf4)) {
    const uint8_t low = first == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = first == 0xf4 ? 0x8f : 0xbf;
    return in(byte(1), low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const size_t length = utf8_length(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

std::string printable(std::string_view text) {
  constexpr size_t kMax = 160;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (out.size() >= kMax) return out + "...";
    const auto value = static_cast<uint8_t>(text[at]);
    const size_t length = utf8_length(text.substr(at));
    // C1 control characters (U+0080..U+009F) steer terminals as well.
    const bool c1 = length == 2 && value == 0xc2 && static_cast<uint8_t>(text[at + 1]) < 0xa0;
    if (length == 0 || value < 0x20 || value == 0x7f || c1) {
      for (size_t end = at + (c1 ? 2 : 1); at < end; ++at) {
        const auto bad = static_cast<uint8_t>(text[at]);
        out += {'\\', 'x', kHex[bad >> 4], kHex[bad & 15]};
      }
    } else {
      out += text.substr(at, length);
      at += length;
    }
  }
  return out;
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    const auto value = static_cast<uint8_t>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (value >= 0x20) {
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += {'\\', 'u', '0', '0', kHex[value >> 4], kHex[value & 15]};
    }
  }
  out += '"';
}

}  // namespace mezzotint::io
