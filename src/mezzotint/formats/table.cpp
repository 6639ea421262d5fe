#include <algorithm>
#include <charconv>

#include "mezzotint/base/edit_distance.h"
#include "mezzotint/base/error.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::formats {
namespace {

/// " Did you mean 'x'?" where a candidate is close enough, else "".
std::string did_you_mean(std::string_view wrong, const std::vector<std::string_view>& candidates) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, wrong.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    const bool extends = wrong.size() >= 3 && candidate.starts_with(wrong);
    const size_t distance = extends ? 1 : edit_distance(wrong, candidate);
    const bool shorter = distance == best_distance && candidate.size() < best.size();
    if (distance < best_distance || shorter) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best.empty() ? "" : "Did you mean '" + std::string(best) + "'?";
}

std::string join(const std::vector<std::string_view>& names) {
  std::string text;
  for (const auto name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

bool split_range(std::string_view range, int64_t& lowest, int64_t& highest) {
  const size_t dots = range.find("..");
  if (dots == std::string_view::npos) return false;
  const std::string_view high = range.substr(dots + 2);
  return std::from_chars(range.data(), range.data() + dots, lowest).ec == std::errc{} &&
         std::from_chars(high.data(), high.data() + high.size(), highest).ec == std::errc{};
}

/// What the option may hold, for messages.
std::string expectation(const OptionSpec& spec) {
  switch (spec.type) {
    case OptionSpec::Type::flag:
      return "true or false";
    case OptionSpec::Type::integer:
      return "a whole number in " + std::string(spec.choices);
    case OptionSpec::Type::choice:
      break;
  }
  return "one of " + std::string(spec.choices);
}

bool allowed(const OptionSpec& spec, std::string_view value) {
  switch (spec.type) {
    case OptionSpec::Type::flag:
      return value == "true" || value == "false";
    case OptionSpec::Type::integer: {
      int64_t number = 0, lowest = 0, highest = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
      // The text must be the number's only spelling, so that equal options compare equal.
      return error == std::errc{} && end == value.data() + value.size() && std::to_string(number) == value &&
             split_range(spec.choices, lowest, highest) && number >= lowest && number <= highest;
    }
    case OptionSpec::Type::choice:
      break;
  }
  for (std::string_view rest = spec.choices; !rest.empty();) {
    const size_t bar = rest.find('|');
    if (rest.substr(0, bar) == value) return true;
    rest = bar == std::string_view::npos ? std::string_view{} : rest.substr(bar + 1);
  }
  return false;
}

}  // namespace

Options complete_options(const Format& format, const Options& given) {
  std::vector<std::string_view> names;
  for (const auto& spec : format.options) names.push_back(spec.name);
  Options complete;
  for (const auto& spec : format.options) complete.set(spec.name, spec.default_value);
  for (const auto& [name, value] : given.values()) {
    const auto spec = std::find_if(format.options.begin(), format.options.end(),
                                   [&](const OptionSpec& candidate) { return candidate.name == name; });
    if (spec == format.options.end())
      throw Error({.name = "bad-option",
                   .problem = "format " + std::string(format.name) + " has no option '" + name + "'",
                   .expected = names.empty() ? "no options" : join(names),
                   .advice = did_you_mean(name, names)});
    if (!allowed(*spec, value))
      throw Error({.name = "bad-option",
                   .problem = "bad value of option '" + name + "' of format " + std::string(format.name),
                   .expected = expectation(*spec),
                   .found = "'" + value + "'"});
    complete.set(name, value);
  }
  return complete;
}

Selection select_format(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view wanted = text.substr(0, colon);
  std::vector<std::string_view> names;
  for (const Format* format : all_formats()) {
    names.push_back(format->name);
    std::string_view preset;
    bool match = format->name == wanted;
    for (const auto& alias : format->aliases) {
      names.push_back(alias.name);
      if (alias.name == wanted) {
        match = true;
        preset = alias.options;
      }
    }
    if (!match) continue;
    Options options = parse_options(preset);
    if (colon != std::string_view::npos) {
      const Options given = parse_options(text.substr(colon + 1));
      for (const auto& [name, value] : given.values()) options.set(name, value);
    }
    return {format, complete_options(*format, options)};
  }
  throw Error({.name = "unknown-format",
               .problem = "no format is called '" + std::string(wanted) + "'",
               .expected = join(names),
               .advice = did_you_mean(wanted, names)});
}

std::string Selection::label() const {
  std::string text;
  for (const auto& spec : format->options)
    if (const auto value = options.text(spec.name); value != spec.default_value)
      text += (text.empty() ? "" : ",") + std::string(spec.name) + "=" + std::string(value);
  return std::string(format->name) + (text.empty() ? "" : ":" + text);
}

const TensorFacts* StoredLayer::find(std::string_view suffix) const {
  for (const auto& tensor : tensors)
    if (tensor.suffix == suffix) return &tensor;
  return nullptr;
}

}  // namespace mezzotint::formats
