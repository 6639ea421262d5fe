#pragma once
#include <cstdio>
#include <string>
#include <string_view>

namespace mezzotint::cli {

bool is_terminal(std::FILE* stream);
/// Columns of the terminal behind stderr; 80 where it does not say.
int terminal_width();

enum class Colour { red, yellow, green, bold };
/// The text in colour, or as it is where `stream` is not a terminal or NO_COLOR is set.
std::string coloured(std::string_view text, Colour colour, std::FILE* stream);

}  // namespace mezzotint::cli
