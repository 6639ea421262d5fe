#pragma once
#include <string>

namespace mezzotint::convert {

/// The `mezzotint convert` that makes an output again: every option of its recipe (recipe.h) spelled out, quoted for a
/// shell. Of a recipe that comes with the program: its name, and what was given beside it. A layer config and a
/// recipe's name cannot be spelled out: then the recipe is taken from the output's header, and what is a list is said
/// again, so that more can be added at the end of the command. Of calibration files the recipe knows only a
/// fingerprint: the command says FILE.
std::string convert_command(const std::string& recipe, const std::string& input, const std::string& output);

}  // namespace mezzotint::convert
