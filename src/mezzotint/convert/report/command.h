#pragma once
#include <string>

namespace mezzotint::convert {

/// The `mezzotint convert` that makes an output again: every option of its recipe (recipe.h) spelled out, quoted for a
/// shell. A layer config cannot be spelled out: then the recipe is taken from the output's header, and what is a list
/// is said again, so that more can be added at the end of the command.
std::string convert_command(const std::string& recipe, const std::string& input, const std::string& output);

}  // namespace mezzotint::convert
