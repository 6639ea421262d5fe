#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/terminal.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::cli {
namespace {

nlohmann::ordered_json format_json(const formats::Format& format) {
  nlohmann::ordered_json object;
  object["name"] = format.name;
  object["summary"] = format.summary;
  object["quantized"] = format.quantized;
  object["writable"] = format.writable;
  object["aliases"] = nlohmann::ordered_json::array();
  for (const auto& alias : format.aliases)
    object["aliases"].push_back({{"name", alias.name}, {"options", alias.options}});
  object["options"] = nlohmann::ordered_json::array();
  for (const auto& option : format.options)
    object["options"].push_back(
        {{"name", option.name}, {"default", option.default_value}, {"choices", option.choices}, {"help", option.help}});
  object["comfyui"] = format.support.comfyui;
  object["loaders"] = format.support.loaders;
  object["fast_on"] = format.support.fast_on;
  object["nearest"] = format.support.nearest;
  return object;
}

void print_format(const formats::Format& format) {
  fmt::print("{}  {}\n", coloured(format.name, Colour::bold, stdout), format.summary);
  for (const auto& alias : format.aliases)
    fmt::print("    alias {}{}{}\n", alias.name, alias.options.empty() ? "" : " = ", alias.options);
  for (const auto& option : format.options)
    fmt::print("    option {}={} ({}): {}\n", option.name, option.default_value,
               option.choices.empty() ? "true|false" : option.choices, option.help);
  if (!format.writable) fmt::print("    can be read and converted from, not written\n");
  if (!format.support.comfyui)
    fmt::print(
        "    not loaded by ComfyUI{}\n",
        format.support.nearest.empty() ? "" : fmt::format("; the nearest that it loads is {}", format.support.nearest));
  if (!format.support.loaders.empty()) fmt::print("    loaded by {}\n", format.support.loaders);
  if (!format.support.fast_on.empty()) fmt::print("    fast on {}\n", format.support.fast_on);
}

int run_formats(bool json) {
  if (json) {
    auto list = nlohmann::ordered_json::array();
    for (const formats::Format* format : formats::all_formats()) list.push_back(format_json(*format));
    fmt::print("{}\n", nlohmann::ordered_json{{"formats", list}}.dump(2));
    return kDone;
  }
  for (const formats::Format* format : formats::all_formats()) print_format(*format);
  return kDone;
}

}  // namespace

void add_formats(CLI::App& app, Context& context) {
  auto json = std::make_shared<bool>(false);
  CLI::App* sub = app.add_subcommand("formats", "List the formats: options, aliases, who loads them");
  add_json_option(*sub, *json);
  sub->callback([json, &context] { context.action = [json] { return run_formats(*json); }; });
}

}  // namespace mezzotint::cli
