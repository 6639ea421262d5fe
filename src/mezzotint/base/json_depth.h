#pragma once
#include <cstddef>
#include <string_view>

namespace mezzotint {

/// Nesting that JSON of files we did not write may have. Parsers cope with more, but printing, copying and comparing
/// what they return takes stack by the level.
inline constexpr size_t kMaxForeignJsonDepth = 64;

/// Whether brackets outside of strings nest deeper than that. The text need not be JSON.
bool json_too_deep(std::string_view text);

}  // namespace mezzotint
