#include "mezzotint/convert/shipped_recipes.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzotint/base/edit_distance.h"
#include "mezzotint/base/error.h"

namespace mezzotint::convert {

const std::vector<ShippedRecipe>& shipped_recipes() {
  static const std::vector<ShippedRecipe> list = [] {
    std::vector<ShippedRecipe> recipes;
    for (const std::string_view text : shipped_recipe_texts()) {
      const auto root = nlohmann::json::parse(text);
      recipes.push_back({root.at("name"), root.at("revision"), root.at("description"), text});
    }
    std::ranges::sort(recipes, {}, &ShippedRecipe::name);
    return recipes;
  }();
  return list;
}

const ShippedRecipe* find_shipped_recipe(std::string_view name) {
  const auto& all = shipped_recipes();
  const auto at = std::ranges::find(all, name, &ShippedRecipe::name);
  return at == all.end() ? nullptr : &*at;
}

const ShippedRecipe& select_shipped_recipe(std::string_view name) {
  if (const ShippedRecipe* found = find_shipped_recipe(name)) return *found;
  std::string_view nearest;
  size_t best = 1 + name.size() / 3;  // farther than that is no misspelling
  std::string names;
  for (const ShippedRecipe& recipe : shipped_recipes()) {
    names += (names.empty() ? "" : ", ") + recipe.name;
    if (const size_t d = edit_distance(name, recipe.name); d <= best && (d < best || nearest.empty())) {
      best = d;
      nearest = recipe.name;
    }
  }
  throw Error({.name = "unknown-recipe",
               .problem = fmt::format("there is no file and no recipe '{}'", name),
               .expected = "a file, or one of " + names,
               .advice = nearest.empty() ? "`mezzotint recipes` says what each is for."
                                         : fmt::format("Did you mean '{}'?", nearest)});
}

}  // namespace mezzotint::convert
