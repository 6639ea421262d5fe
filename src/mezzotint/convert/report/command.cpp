#include "mezzotint/convert/report/command.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzotint/convert/report/findings.h"

namespace mezzotint::convert {
namespace {

// Fields of a recipe that are not options: what is checked, and what belongs to a layer config.
constexpr std::string_view kNoOptions[] = {"version", "calibration_fingerprint", "layer_config",
                                           "layer_config_fullmatch"};

std::string option_name(std::string field) {
  std::replace(field.begin(), field.end(), '_', '-');
  return " --" + field;
}

std::string text_of(const nlohmann::ordered_json& value) {
  return shell_word(value.is_string() ? value.get<std::string>() : value.dump());
}

}  // namespace

std::string convert_command(const std::string& recipe, const std::string& input, const std::string& output) {
  std::string command = "mezzotint convert " + shell_word(input) + " -o " + shell_word(output);
  const auto fields = nlohmann::ordered_json::parse(recipe, nullptr, false);
  if (!fields.is_object()) return command;
  const bool from_header = fields.contains("layer_config");
  if (from_header) command += " --recipe " + shell_word(output);
  for (const auto& [name, value] : fields.items()) {
    if (std::find(std::begin(kNoOptions), std::end(kNoOptions), name) != std::end(kNoOptions)) continue;
    if (value.is_array()) {
      for (const auto& item : value) command += option_name(name) + " " + text_of(item);
    } else if (from_header || (name == "preset" && value == "auto")) {
      continue;
    } else if (value.is_boolean()) {
      if (value.get<bool>()) command += option_name(name);
    } else {
      command += option_name(name) + " " + text_of(value);
    }
  }
  return command;
}

}  // namespace mezzotint::convert
