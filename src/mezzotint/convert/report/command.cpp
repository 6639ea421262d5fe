#include "mezzotint/convert/report/command.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzotint/convert/report/findings.h"
#include "mezzotint/convert/shipped_recipes.h"

namespace mezzotint::convert {
namespace {

// Fields of a recipe that are not options: whose they are, and what belongs to a layer config.
constexpr std::string_view kNoOptions[] = {"version",  "name",         "revision",
                                           "modified", "layer_config", "layer_config_fullmatch"};

std::string option_name(std::string field) {
  std::replace(field.begin(), field.end(), '_', '-');
  return " --" + field;
}

std::string text_of(const nlohmann::ordered_json& value) {
  return shell_word(value.is_string() ? value.get<std::string>() : value.dump());
}

/// FILE:STRENGTH, of an entry for an adapter.
std::string lora_of(const nlohmann::ordered_json& entry) {
  const auto file = entry.find("file"), strength = entry.find("strength");
  if (file == entry.end() || strength == entry.end() || !file->is_string()) return text_of(entry);
  return shell_word(file->get<std::string>() + ":" + strength->dump());
}

void add_option(std::string& command, const std::string& name, const nlohmann::ordered_json& value) {
  if (value.is_array()) {
    for (const auto& item : value)
      command += option_name(name) + " " + (item.is_object() ? lora_of(item) : text_of(item));
  } else if (value.is_boolean()) {
    if (value.get<bool>()) command += option_name(name);
  } else if (name == "calibration") {
    command += option_name(name) + " FILE";  // the recipe knows the files' fingerprint, not where they lie
  } else {
    command += option_name(name) + " " + text_of(value);
  }
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Headers are anybody's: nothing here may throw.
std::vector<std::string> modified_fields(const nlohmann::ordered_json& fields) {
  std::vector<std::string> names;
  if (const auto at = fields.find("modified"); at != fields.end() && at->is_array())
    for (const auto& name : *at)
      if (name.is_string()) names.push_back(name);
  return names;
}

// Its name, where the program has it in that revision and what was changed can be said by options.
std::string short_recipe(const nlohmann::ordered_json& fields, const std::vector<std::string>& modified) {
  const auto name = fields.find("name"), revision = fields.find("revision");
  if (name == fields.end() || !name->is_string() || revision == fields.end()) return "";
  const ShippedRecipe* shipped = find_shipped_recipe(name->get<std::string>());
  if (shipped == nullptr || *revision != shipped->revision) return "";
  for (const std::string& field : modified)
    if (!fields.contains(field) || field == "layer_config") return "";
  return shipped->name;
}

}  // namespace

std::string convert_command(const std::string& recipe, const std::string& input, const std::string& output) {
  std::string command = "mezzotint convert " + shell_word(input) + " -o " + shell_word(output);
  const auto fields = nlohmann::ordered_json::parse(recipe, nullptr, false);
  if (!fields.is_object()) return command;
  const std::vector<std::string> modified = modified_fields(fields);
  const std::string name = short_recipe(fields, modified);
  const bool from_header = name.empty() && (fields.contains("layer_config") || fields.contains("name"));
  if (!name.empty()) command += " --recipe " + shell_word(name);
  if (from_header) command += " --recipe " + shell_word(output);
  for (const auto& [field, value] : fields.items()) {
    if (std::find(std::begin(kNoOptions), std::end(kNoOptions), field) != std::end(kNoOptions)) continue;
    const bool said = !name.empty() ? !contains(modified, field)
                                    : (from_header && !value.is_array() && field != "calibration") ||
                                          (field == "preset" && value == "auto");
    if (!said) add_option(command, field, value);
  }
  return command;
}

}  // namespace mezzotint::convert
