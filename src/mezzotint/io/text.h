#pragma once
#include <cstddef>
#include <string>
#include <string_view>

/// Text from files that nobody has checked yet (room-internal).
namespace mezzotint::io {

/// Offset of the first byte that is not well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates), or npos.
size_t find_invalid_utf8(std::string_view text);

/// For messages: control characters as \xNN, at most 160 bytes.
std::string printable(std::string_view text);

/// Appends `text` as a JSON string with its quotes. `text` must be UTF-8; it is written as it is apart from quotes,
/// backslashes and control characters.
void append_json_string(std::string& out, std::string_view text);

}  // namespace mezzotint::io
