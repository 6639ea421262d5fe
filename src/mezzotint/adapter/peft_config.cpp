#include "mezzotint/adapter/peft_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/base/json_depth.h"

namespace mezzotint::adapter {
namespace {

[[noreturn]] void refuse_config(std::string problem) {
  throw Error({.name = "bad-adapter-config", .problem = std::move(problem)});
}

}  // namespace

PeftConfig::PeftConfig(std::string_view json) {
  const nlohmann::json config = json_too_deep(json) ? nlohmann::json() : nlohmann::json::parse(json, nullptr, false);
  if (!config.is_object()) refuse_config("the adapter's configuration is no JSON object");
  const auto section = [&](const std::string& prefix) -> Section& {
    const auto found = std::ranges::find(sections_, prefix, &Section::prefix);
    return found != sections_.end() ? *found : sections_.emplace_back(Section{prefix, {}, false, {}});
  };
  for (const auto& [key, value] : config.items()) {
    const size_t dot = key.rfind('.');
    const std::string prefix = dot == std::string::npos ? "" : key.substr(0, dot);
    const std::string_view name = dot == std::string::npos ? key : std::string_view(key).substr(dot + 1);
    if (name == "lora_alpha" || name == "alpha") {  // of LoRA; of LoHa and LoKr
      if (!value.is_number()) refuse_config(fmt::format("{} is no number", key));
      section(prefix).alpha = value.get<double>();
    } else if (name == "use_rslora") {
      section(prefix).rank_stabilized = value.is_boolean() && value.get<bool>();
    } else if (name == "alpha_pattern" && value.is_object()) {
      for (const auto& [pattern, alpha] : value.items()) {
        if (!alpha.is_number()) refuse_config(fmt::format("{} of {} is no number", pattern, key));
        if (pattern.find_first_of("*+?()[]|^$\\") != std::string::npos)
          notes_.push_back(fmt::format("alpha_pattern '{}' is a regular expression and was not applied", pattern));
        section(prefix).patterns.emplace_back(pattern, alpha.get<double>());
      }
    }
  }
}

std::optional<PeftConfig::Scaling> PeftConfig::scaling(std::string_view target) const {
  const auto ends_with_name = [&](std::string_view name) {
    return target == name || (target.ends_with(name) && target[target.size() - name.size() - 1] == '.');
  };
  for (const Section& section : sections_) {
    if (!section.prefix.empty() && !target.starts_with(section.prefix + ".")) continue;
    for (const auto& [pattern, alpha] : section.patterns)
      if (ends_with_name(pattern)) return Scaling{alpha, section.rank_stabilized};
    if (section.alpha) return Scaling{*section.alpha, section.rank_stabilized};
  }
  return std::nullopt;
}

}  // namespace mezzotint::adapter
