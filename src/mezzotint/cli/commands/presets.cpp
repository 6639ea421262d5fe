#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/table.h"
#include "mezzotint/convert/preset.h"

namespace mezzotint::cli {
namespace {

struct PresetsArguments {
  std::string name;
  bool json = false;
};

nlohmann::ordered_json rules_json(std::span<const convert::PresetRule> rules) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& rule : rules) list.push_back({{"pattern", rule.pattern}, {"reason", rule.reason}});
  return list;
}

nlohmann::ordered_json preset_json(const convert::Preset& preset, bool rules) {
  nlohmann::ordered_json object{{"name", preset.name}, {"summary", preset.summary}, {"aliases", preset.aliases}};
  if (!rules) return object;
  object["keep"] = rules_json(preset.keep);
  object["quantize"] = rules_json(preset.quantize);
  object["generic"] = rules_json(convert::generic_rules());
  return object;
}

void print_rules(const char* heading, std::span<const convert::PresetRule> rules) {
  if (rules.empty()) return;
  fmt::print("{}\n", heading);
  Table table({"", ""});
  for (const auto& rule : rules) table.add({"  " + std::string(rule.pattern), std::string(rule.reason)});
  fmt::print("{}", table.to_text());
}

int show(const convert::Preset& preset, bool json) {
  if (json) {
    fmt::print("{}\n", preset_json(preset, true).dump(2));
    return kDone;
  }
  fmt::print("{}: {}\n", preset.name, preset.summary);
  print_rules("Layers that stay in their dtype:", preset.keep);
  print_rules("Layers that are quantized in spite of a generic rule:", preset.quantize);
  print_rules("Rules of every architecture:", convert::generic_rules());
  return kDone;
}

int list_presets(bool json) {
  if (json) {
    auto all = nlohmann::ordered_json::array();
    for (const convert::Preset* preset : convert::all_presets()) all.push_back(preset_json(*preset, false));
    fmt::print("{}\n", nlohmann::ordered_json{{"presets", all}}.dump(2));
    return kDone;
  }
  Table table({"NAME", "ALIASES", "WHAT"});
  for (const convert::Preset* preset : convert::all_presets())
    table.add(
        {std::string(preset->name), fmt::format("{}", fmt::join(preset->aliases, " ")), std::string(preset->summary)});
  fmt::print("{}", table.to_text());
  return kDone;
}

}  // namespace

void add_presets(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<PresetsArguments>();
  CLI::App* sub = app.add_subcommand("presets", "List the architectures that are known, or show one's rules");
  sub->add_option("name", arguments->name, "Preset whose rules to show")->type_name("NAME");
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] {
    context.action = [arguments] {
      return arguments->name.empty() ? list_presets(arguments->json)
                                     : show(convert::select_preset(arguments->name), arguments->json);
    };
  });
}

}  // namespace mezzotint::cli
