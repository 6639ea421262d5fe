#pragma once
#include <string>
#include <string_view>

namespace mezzotint::cli {

/// "mezzotint: warning: ..." on stderr, the word in colour on a terminal.
void warn(std::string_view message);
/// "mezzotint: ..." on stderr.
void say(std::string_view message);

}  // namespace mezzotint::cli
