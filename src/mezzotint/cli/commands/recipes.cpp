#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/table.h"
#include "mezzotint/convert/shipped_recipes.h"

namespace mezzotint::cli {
namespace {

struct RecipesArguments {
  std::string name;
  bool json = false;
};

int show(const std::string& name) {
  const auto& recipe = convert::select_shipped_recipe(name);
  fmt::print("{}{}", recipe.text, recipe.text.ends_with('\n') ? "" : "\n");
  return kDone;
}

int list_recipes(bool json) {
  if (json) {
    auto all = nlohmann::ordered_json::array();
    for (const auto& recipe : convert::shipped_recipes())
      all.push_back({{"name", recipe.name}, {"revision", recipe.revision}, {"description", recipe.description}});
    fmt::print("{}\n", nlohmann::ordered_json{{"recipes", all}}.dump(2));
    return kDone;
  }
  Table table({"NAME", ">REVISION", "WHAT"});
  for (const auto& recipe : convert::shipped_recipes())
    table.add({recipe.name, fmt::format("{}", recipe.revision), recipe.description});
  fmt::print("{}", table.to_text());
  return kDone;
}

}  // namespace

void add_recipes(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<RecipesArguments>();
  CLI::App* sub = app.add_subcommand("recipes", "List the recipes that come with the program, or print one");
  sub->add_option("name", arguments->name, "Recipe to print, a JSON file for --recipe")->type_name("NAME");
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] {
    context.action = [arguments] {
      return arguments->name.empty() ? list_recipes(arguments->json) : show(arguments->name);
    };
  });
}

}  // namespace mezzotint::cli
