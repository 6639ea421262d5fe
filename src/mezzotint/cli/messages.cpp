#include "mezzotint/cli/messages.h"

#include <fmt/format.h>

#include "mezzotint/cli/terminal.h"

namespace mezzotint::cli {

void warn(std::string_view message) {
  fmt::print(stderr, "mezzotint: {}: {}\n", coloured("warning", Colour::yellow, stderr), message);
}

void say(std::string_view message) {
  fmt::print(stderr, "mezzotint: {}\n", message);
}

}  // namespace mezzotint::cli
