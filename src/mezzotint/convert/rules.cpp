#include "mezzotint/convert/rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "mezzotint/checkpoint/suffixes.h"

namespace mezzotint::convert {
namespace {

std::vector<Regex> compile(std::span<const std::string> patterns) {
  std::vector<Regex> compiled;
  compiled.reserve(patterns.size());
  for (const std::string& pattern : patterns) compiled.emplace_back(pattern);
  return compiled;
}

/// People write patterns with and without ".weight" in mind.
const Regex* first_match(std::span<const Regex> patterns, std::string_view tensor, std::string_view layer) {
  const auto at = std::ranges::find_if(
      patterns, [&](const Regex& pattern) { return pattern.search(tensor) || pattern.search(layer); });
  return at == patterns.end() ? nullptr : &*at;
}

LayerDecision keep(DecidedBy by, std::string reason) {
  return {.quantize = false, .by = by, .reason = std::move(reason)};
}

LayerDecision apply(const LayerSettings& settings, DecidedBy by, std::string reason) {
  return {.quantize = !settings.skip,
          .by = by,
          .reason = std::move(reason),
          .selection = settings.selection,
          .simple = settings.simple,
          .full_precision_matrix_mult = settings.full_precision_matrix_mult};
}

}  // namespace

LayerRules::LayerRules(RuleOptions options)
    : options_(std::move(options)), include_(compile(options_.include)), exclude_(compile(options_.exclude)) {
  if (options_.preset) preset_.emplace(*options_.preset);
}

LayerDecision LayerRules::decide(std::string_view tensor, std::span<const int64_t> shape, bool is_float) const {
  if (auto reason = structural_reason(tensor, shape, is_float)) return keep(DecidedBy::structure, std::move(*reason));

  using checkpoint::kDotWeight;
  const std::string_view layer = tensor.substr(0, tensor.size() - kDotWeight.size());
  const std::string_view inner = layer.starts_with(options_.prefix) ? layer.substr(options_.prefix.size()) : layer;
  const LayerSettings* settings = options_.layer_config ? options_.layer_config->find(layer, inner) : nullptr;
  if (settings && (settings->skip || settings->selection)) {
    return apply(*settings, DecidedBy::layer_config, fmt::format("layer config '{}'", settings->key));
  }
  LayerDecision decision = decide_without_config(tensor, layer, inner, shape);
  // An entry without a format only adds to what the other rules decide.
  if (settings && settings->simple) decision.simple = settings->simple;
  if (settings && settings->full_precision_matrix_mult) {
    decision.full_precision_matrix_mult = settings->full_precision_matrix_mult;
  }
  return decision;
}

LayerDecision LayerRules::decide_without_config(std::string_view tensor, std::string_view layer, std::string_view inner,
                                                std::span<const int64_t> shape) const {
  const LayerSettings* rest = options_.layer_config ? options_.layer_config->fallback() : nullptr;
  if (const Regex* hit = first_match(exclude_, tensor, layer)) {
    return keep(DecidedBy::exclude, fmt::format("--exclude '{}'", hit->pattern()));
  }
  if (const Regex* hit = first_match(include_, tensor, layer)) {
    std::string reason = fmt::format("--include '{}'", hit->pattern());
    if (rest && !rest->skip) return apply(*rest, DecidedBy::include, std::move(reason));
    return {.quantize = true, .by = DecidedBy::include, .reason = std::move(reason)};
  }
  if (auto reason = too_small_reason(shape)) return keep(DecidedBy::generic, std::move(*reason));
  if (preset_) {
    if (const auto kept = preset_->keep_reason(inner)) {
      const bool own = kept->source == PresetRules::Source::preset;
      return own ? keep(DecidedBy::preset, fmt::format("{} (preset {})", kept->reason, options_.preset->name))
                 : keep(DecidedBy::generic, fmt::format("{} (generic rule)", kept->reason));
    }
  }
  if (rest) return apply(*rest, DecidedBy::layer_config, "layer config '_default'");
  return {.quantize = true, .by = DecidedBy::otherwise, .reason = "no rule keeps it"};
}

}  // namespace mezzotint::convert
