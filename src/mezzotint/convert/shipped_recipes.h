#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// The recipes that come with the program: convert/recipes/NAME.json, one file each, put into the library by
/// cmake/Recipes.cmake.
namespace mezzotint::convert {

struct ShippedRecipe {
  std::string name;
  uint64_t revision = 1;
  std::string description;  ///< what it is for and where its rules come from
  std::string_view text;    ///< the file, for recipe_from_json
};

/// In the order of their names.
const std::vector<ShippedRecipe>& shipped_recipes();

/// Null where there is none of that name.
const ShippedRecipe* find_shipped_recipe(std::string_view name);
/// Throws Error "unknown-recipe", which names the nearest and lists all.
const ShippedRecipe& select_shipped_recipe(std::string_view name);

/// The files' texts (room-internal).
std::span<const std::string_view> shipped_recipe_texts();

}  // namespace mezzotint::convert
