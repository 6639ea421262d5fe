#include "mezzotint/cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace mezzotint::cli {

bool is_terminal(std::FILE* stream) {
  return isatty(fileno(stream)) != 0;
}

int terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string coloured(std::string_view text, Colour colour, std::FILE* stream) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string_view(term) == "dumb";
  if (!is_terminal(stream) || dumb || (no_colour != nullptr && *no_colour != '\0')) return std::string(text);
  constexpr std::string_view codes[] = {"31", "33", "32", "1"};
  return fmt::format("\033[{}m{}\033[0m", codes[static_cast<size_t>(colour)], text);
}

}  // namespace mezzotint::cli
