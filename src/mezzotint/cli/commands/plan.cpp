#include "mezzotint/convert/plan.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/cli/budget_options.h"
#include "mezzotint/cli/conversion_options.h"
#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/plan_text.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/layer_config.h"
#include "mezzotint/convert/paths.h"
#include "mezzotint/convert/recipe.h"

namespace mezzotint::cli {
namespace {

struct PlanArguments {
  std::string input, output, save, save_recipe;
  ConversionArguments conversion;
  BudgetArguments budget;
  bool layers = false, layer_template = false, json = false;
};

void save_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text << '\n';
  file.flush();
  if (!file) throw Error({.name = "write-failed", .problem = "the file cannot be written", .file = path});
}

// Every matrix of the file, with what the plan does to it as a comment.
std::string layer_template(const convert::Plan& plan) {
  std::vector<convert::TemplateLayer> layers;
  for (const auto& row : plan.rows) {
    if (row.shape.size() < 2 || row.action == convert::Action::drop) continue;
    layers.push_back({checkpoint::layer_name(row.name), row.shape, fmt::format("{} ({})", row.to, row.reason)});
  }
  return convert::layer_config_template(layers);
}

std::string plan_json(const convert::Plan& plan, const std::optional<convert::Budget>& budget) {
  if (!budget) return convert::to_json(plan);
  auto root = nlohmann::ordered_json::parse(convert::to_json(plan));
  root["budget"] = nlohmann::ordered_json::parse(convert::to_json(*budget));
  return root.dump(2);
}

int run_plan(const PlanArguments& arguments) {
  convert::ConvertOptions options = read_options(arguments.conversion);
  const auto model = checkpoint::Model::open(arguments.input);
  const auto output =
      convert::choose_output(arguments.input, arguments.output, output_label(arguments.budget, options), false);
  const auto budget = apply_budget(arguments.budget, arguments.conversion, model, output, false, options);
  const auto plan = convert::make_plan(model, output, options, convert::thread_count(arguments.conversion.threads));
  for (const auto& warning : plan.warnings) warn(warning);
  if (!arguments.save.empty()) save_text(arguments.save, plan_json(plan, budget));
  if (!arguments.save_recipe.empty()) save_text(arguments.save_recipe, convert::recipe_json(plan.options));
  if (arguments.layer_template)
    fmt::print("{}\n", layer_template(plan));
  else if (arguments.json)
    fmt::print("{}\n", plan_json(plan, budget));
  else
    fmt::print("{}{}", plan_text(plan, arguments.layers), budget ? "\n" + budget_text(*budget) : "");
  return kDone;
}

}  // namespace

void add_plan(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* sub = app.add_subcommand("plan", "Say what convert would do: every decision, exact sizes, memory, time");
  sub->add_option("input", arguments->input, "Model: .safetensors file, *.index.json, or folder")
      ->required()
      ->type_name("INPUT");
  sub->add_option("-o,--output", arguments->output, "Output that the plan is for")->type_name("PATH");
  add_conversion_options(*sub, arguments->conversion);
  add_budget_options(*sub, arguments->budget);
  sub->add_flag("--layers", arguments->layers, "Print every tensor, not groups of them");
  auto* print_template =
      sub->add_flag("--template", arguments->layer_template,
                    "Print a layer config with every layer, to be edited and given to --layer-config");
  sub->add_option("--save", arguments->save, "Save the plan as JSON")->type_name("FILE");
  sub->add_option("--save-recipe", arguments->save_recipe, "Save the options, to be given to --recipe")
      ->type_name("FILE");
  sub->add_flag("--json", arguments->json, "Print JSON on stdout (docs/cli.md describes it)")->excludes(print_template);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_plan(*arguments); }; });
}

}  // namespace mezzotint::cli
