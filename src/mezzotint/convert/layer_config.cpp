#include "mezzotint/convert/layer_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/base/json_depth.h"

namespace mezzotint::convert {
namespace {

using Json = nlohmann::ordered_json;

/// Where in a config an error is.
struct Place {
  const std::string& file;
  std::string_view key;

  [[noreturn]] void fail(std::string problem, std::string expected = "", std::string found = "",
                         std::string advice = "") const {
    throw Error({.name = "bad-layer-config",
                 .problem = key.empty() ? std::move(problem) : fmt::format("entry '{}': {}", key, problem),
                 .file = file,
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .advice = std::move(advice)});
  }
  bool boolean(std::string_view field, const Json& value) const {
    if (!value.is_boolean()) fail(fmt::format("'{}' must be true or false", field), "a boolean", value.dump());
    return value.get<bool>();
  }
};

/// How a format shares scales, found out by describing a sample instead of by its name.
std::string_view scaling_of(const formats::Format& format, const formats::Options& options) {
  const formats::Options complete = formats::complete_options(format, options);
  const int64_t block = complete.has("block_size") ? complete.integer("block_size") : 1;
  const int64_t side = block * ((4096 + block - 1) / block);  // a multiple of every usual block, and of this one
  const auto description = format.describe({.shape = {side, side}}, complete);
  if (!description.layout) return "";
  const formats::Layout& layout = *description.layout;
  if (layout.tensors.size() < 2) return "none";
  if (layout.block_rows == 0 && layout.block_cols == 0) return "tensor";
  if (layout.block_rows == 1 && layout.block_cols == 0) return "row";
  return "block";
}

std::string_view canonical_scaling(std::string_view mode) {
  if (mode == "axis") return "row";
  if (mode == "block2d" || mode == "block3d") return "block";
  return mode;
}

const formats::OptionSpec* find_option(const formats::Format& format, std::string_view name) {
  const auto at = std::ranges::find(format.options, name, &formats::OptionSpec::name);
  return at == format.options.end() ? nullptr : &*at;
}

void set_scaling(const Place& place, const Json& value, const formats::Format& format, formats::Options& options) {
  if (!value.is_string()) place.fail("'scaling_mode' must be text", "tensor, row or block", value.dump());
  const std::string mode(canonical_scaling(value.get<std::string>()));
  if (mode != "tensor" && mode != "row" && mode != "block") {
    place.fail("unknown scaling_mode", "tensor, row or block", value.dump());
  }
  // The mode may be an option of the format, whatever that option is called.
  for (const formats::OptionSpec& option : format.options) {
    if (option.type != formats::OptionSpec::Type::choice) continue;
    const std::string choices = fmt::format("|{}|", option.choices);
    if (choices.find(fmt::format("|{}|", mode)) != std::string::npos) options.set(option.name, mode);
  }
  if (const std::string_view actual = scaling_of(format, options); actual != mode) {
    place.fail(fmt::format("{} cannot scale by {}", format.name, mode), mode, std::string(actual),
               "`mezzotint formats` lists formats and their options");
  }
}

std::string option_text(const Place& place, std::string_view field, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_integer()) return value.dump();
  place.fail(fmt::format("'{}' must be a number, a boolean or text", field), "", value.dump());
}

std::string known_fields(const formats::Format* format) {
  std::string names = "format, skip, scaling_mode, simple, full_precision_matrix_mult";
  if (format) {
    for (const formats::OptionSpec& option : format->options) names += fmt::format(", {}", option.name);
  }
  return names;
}

/// Nothing where the entry asks for nothing (a line of an unedited template).
std::optional<LayerSettings> parse_entry(const Place& place, const Json& entry) {
  if (!entry.is_object()) place.fail("must be an object", "{\"format\": ...}", entry.dump());
  LayerSettings settings;
  settings.key = place.key;
  std::string format_text;
  std::vector<std::pair<std::string, const Json*>> options;
  bool anything = false;
  for (const auto& [field, value] : entry.items()) {
    if (field.starts_with('_')) continue;
    if (field == "format") {
      if (!value.is_string()) place.fail("'format' must be text", "", value.dump());
      format_text = value.get<std::string>();
      anything |= !format_text.empty();
      continue;
    }
    anything = true;
    if (field == "skip") {
      settings.skip = place.boolean(field, value);
    } else if (field == "simple") {
      settings.simple = place.boolean(field, value);
    } else if (field == "full_precision_matrix_mult") {
      settings.full_precision_matrix_mult = place.boolean(field, value);
    } else {
      options.emplace_back(field, &value);
    }
  }
  if (!anything) return std::nullopt;
  if (settings.skip && (!format_text.empty() || !options.empty() || settings.simple)) {
    place.fail("'skip' keeps the layer as it is, so nothing else can be set");
  }
  if (format_text.empty()) {
    if (!options.empty()) {
      place.fail(fmt::format("'{}' needs a 'format'", options.front().first), "", "",
                 "Fields without a format are " + known_fields(nullptr));
    }
    if (!settings.skip && !settings.simple && !settings.full_precision_matrix_mult) return std::nullopt;  // skip: false
    return settings;
  }

  settings.selection = formats::select_format(format_text);
  const formats::Format& format = *settings.selection->format;
  for (const auto& [field, value] : options) {
    if (field == "scaling_mode") continue;
    if (!find_option(format, field)) {
      place.fail(fmt::format("'{}' is not a field, nor an option of {}", field, format.name), known_fields(&format));
    }
    settings.selection->options.set(field, option_text(place, field, *value));
  }
  settings.selection->options = formats::complete_options(format, settings.selection->options);
  for (const auto& [field, value] : options) {
    if (field == "scaling_mode") set_scaling(place, *value, format, settings.selection->options);
  }
  return settings;
}

Json parse_json(std::string_view text, const std::string& file) {
  if (json_too_deep(text)) Place{file, ""}.fail("nests too deeply for a layer config");
  // JSON allows a key twice and the parser keeps the last one: a rule that silently does nothing.
  std::vector<std::set<std::string>> keys(1);
  const auto callback = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      Place{file, ""}.fail(fmt::format("the key '{}' is given twice", value.get<std::string>()));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), callback);
  } catch (const nlohmann::json::exception& error) {
    Place{file, ""}.fail("not valid JSON", "", "",
                         std::string(error.what()) + ". A backslash in a regex is written \\\\");
  }
}

std::string_view without(std::string_view text, std::string_view suffix) {
  return text.ends_with(suffix) ? text.substr(0, text.size() - suffix.size()) : text;
}

}  // namespace

size_t literal_length(std::string_view pattern) {
  size_t count = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      count += std::string_view(".-/_").find(next) != std::string_view::npos;  // \d and its like are no literals
    } else if (c == '[') {
      const size_t close = pattern.find(']', i + 2);
      i = close == std::string_view::npos ? pattern.size() : close;
    } else if (c == '{') {
      const size_t close = pattern.find('}', i);
      i = close == std::string_view::npos ? pattern.size() : close;
    } else if (c == '(' && i + 1 < pattern.size() && pattern[i + 1] == '?') {
      // (?:, (?=, (?P<name>, (?i: are syntax up to their last character
      while (i + 1 < pattern.size() && std::string_view(":=!>)").find(pattern[i + 1]) == std::string_view::npos) ++i;
      ++i;
    } else if (c == '.') {
      // A plain dot is meant as one between name parts, unless it repeats (.* and .+).
      count += i + 1 == pattern.size() || std::string_view("*+?{").find(pattern[i + 1]) == std::string_view::npos;
    } else {
      count += std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    }
  }
  return count;
}

LayerConfig LayerConfig::parse(std::string_view json, std::span<const std::string> names, bool fullmatch,
                               const std::string& file) {
  const Json root = parse_json(json, file);
  if (!root.is_object()) {
    Place{file, ""}.fail("must be an object: a layer name or regex to its settings", "{...}", root.type_name());
  }
  const std::set<std::string_view> known(names.begin(), names.end());
  LayerConfig config;
  config.fullmatch_ = fullmatch;
  for (const auto& [key, entry] : root.items()) {
    if (key.starts_with('_') && key != "_default") continue;
    auto settings = parse_entry({file, key}, entry);
    if (key == "_default") {
      config.default_ = std::move(settings);
      continue;
    }
    const std::string_view name = without(key, ".weight");
    if (known.contains(name)) {
      if (settings) config.exact_.emplace(name, std::move(*settings));
      continue;
    }
    Regex regex(key);  // checked even where the entry asks for nothing
    if (settings) config.patterns_.push_back({std::move(*settings), std::move(regex), literal_length(key)});
  }
  std::ranges::stable_sort(config.patterns_, std::ranges::greater(), &Pattern::literals);
  return config;
}

const LayerSettings* LayerConfig::find(std::string_view name, std::string_view inner) const {
  if (const auto at = exact_.find(name); at != exact_.end()) return &at->second;
  for (const Pattern& pattern : patterns_) {
    const bool hit = fullmatch_ ? pattern.regex.fullmatch(name) || (!inner.empty() && pattern.regex.fullmatch(inner))
                                : pattern.regex.search(name) || (!inner.empty() && pattern.regex.search(inner));
    if (hit) return &pattern.settings;
  }
  return nullptr;
}

std::vector<std::string> LayerConfig::unused(std::span<const std::string> names) const {
  std::vector<std::string> keys;
  for (const Pattern& pattern : patterns_) {
    const bool used = std::ranges::any_of(names, [&](const std::string& name) {
      return fullmatch_ ? pattern.regex.fullmatch(name) : pattern.regex.search(name);
    });
    if (!used) keys.push_back(pattern.settings.key);
  }
  return keys;
}

std::string layer_config_template(std::span<const TemplateLayer> layers) {
  Json root;
  root["_comment"] =
      "Set \"format\" (or \"skip\": true) where you want something else. Keys are layer names or regexes; fields with "
      "a "
      "leading underscore are comments; _default is for all layers without a setting of their own.";
  root["_default"] = {{"format", ""}};
  for (const TemplateLayer& layer : layers) {
    root[layer.name] = {{"format", ""}, {"_shape", layer.shape}, {"_decision", layer.decision}};
  }
  return root.dump(2) + "\n";
}

}  // namespace mezzotint::convert
