#include "mezzotint/cli/app_tree.h"

#include <algorithm>

namespace mezzotint::cli {
namespace {

OptionFacts facts_of(const CLI::Option& option) {
  OptionFacts facts;
  for (const auto& name : option.get_snames()) facts.names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) facts.names.push_back("--" + name);
  if (facts.names.empty()) facts.positional = option.get_type_name();
  if (option.get_items_expected_max() > 0) facts.value = option.get_type_name();
  // Validators append ":RULE" to the type's name; the help text says the rule in words.
  facts.value = facts.value.substr(0, facts.value.find(':'));
  facts.help = option.get_description();
  facts.required = option.get_required();
  facts.many = option.get_items_expected_max() > 1;
  return facts;
}

}  // namespace

bool OptionFacts::is_path() const {
  constexpr std::string_view types[] = {"FILE", "PATH", "INPUT", "FOLDER", "A", "B"};
  return std::find(std::begin(types), std::end(types), value) != std::end(types);
}

std::vector<OptionFacts> global_options(const CLI::App& app) {
  std::vector<OptionFacts> options;
  for (const CLI::Option* option : app.get_options()) options.push_back(facts_of(*option));
  std::stable_partition(options.begin(), options.end(), [](const OptionFacts& o) { return o.names.empty(); });
  return options;
}

std::vector<CommandFacts> commands(const CLI::App& app) {
  std::vector<CommandFacts> list;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App* s) { return !s->get_group().empty(); }))
    list.push_back({sub->get_name(), sub->get_description(), global_options(*sub)});
  return list;
}

}  // namespace mezzotint::cli
