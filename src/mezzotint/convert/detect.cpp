#include "mezzotint/convert/detect.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace mezzotint::convert {
namespace {

// Wrappers that programs put around a model's own names, looked through in this order.
constexpr std::string_view kWrappers[] = {"",
                                          "model.diffusion_model.",
                                          "diffusion_model.",
                                          "model.model.",
                                          "model.",
                                          "transformer.",
                                          "unet.",
                                          "net.",
                                          "module.",
                                          "_orig_mod.",
                                          "model.transformer.",
                                          "transformer.model.",
                                          "model.net."};

/// The sentence that names what was found, or nothing where the signature does not fit.
std::optional<std::string> match(const Signature& signature, const Keys& keys) {
  std::vector<std::string> found;
  std::string_view rest = signature.names;
  while (!rest.empty()) {
    const size_t space = rest.find(' ');
    std::string_view name = rest.substr(0, space);
    rest = space == std::string_view::npos ? std::string_view() : rest.substr(space + 1);
    if (name.empty()) continue;
    const bool absent = name.front() == '!';
    if (absent) name.remove_prefix(1);
    const bool stem = name.back() == '*';
    const std::string_view text = stem ? name.substr(0, name.size() - 1) : name;
    if ((stem ? keys.any(text) : keys.has(text)) == absent) return std::nullopt;
    if (!absent) found.emplace_back(name);
  }
  if (signature.check && !signature.check(keys)) return std::nullopt;
  if (found.empty()) return std::string(signature.whose);
  return fmt::format("{} {} {}", fmt::join(found, " and "), found.size() == 1 ? "is" : "are", signature.whose);
}

struct Match {
  const Preset* preset = nullptr;
  int confidence = 0;
  std::string reason;
  std::string prefix;
};

/// Best fit of one preset under all wrappers.
std::optional<Match> best_match(const Preset& preset, std::span<const std::pair<std::string, Keys>> views) {
  std::optional<Match> best;
  for (const auto& [prefix, keys] : views) {
    for (const Signature& signature : preset.signatures) {
      if (best && signature.confidence <= best->confidence) continue;
      if (auto reason = match(signature, keys)) best = Match{&preset, signature.confidence, std::move(*reason), prefix};
    }
  }
  return best;
}

std::vector<std::pair<std::string, Keys>> views_of(std::span<const io::TensorInfo> tensors, std::string_view prefix) {
  std::vector<std::pair<std::string, Keys>> views;
  for (const std::string_view wrapper : kWrappers) {
    std::string full = fmt::format("{}{}", prefix, wrapper);
    Keys keys(tensors, full);
    if (keys.size() > 0) views.emplace_back(std::move(full), std::move(keys));
  }
  return views;
}

std::string variant_of(const Preset& preset, std::span<const std::pair<std::string, Keys>> views,
                       std::string_view prefix) {
  if (!preset.variant) return "";
  for (const auto& [full, keys] : views) {
    if (full == prefix) return preset.variant(keys);
  }
  return "";
}

}  // namespace

Detection detect(std::span<const io::TensorInfo> tensors, std::string_view prefix) {
  const auto views = views_of(tensors, prefix);
  std::vector<Match> matches;
  for (const Preset* preset : all_presets()) {
    if (auto found = best_match(*preset, views)) matches.push_back(std::move(*found));
  }
  std::ranges::stable_sort(matches, std::ranges::greater(), &Match::confidence);

  Detection detection;
  if (matches.empty()) {
    detection.preset = &select_preset("generic");
    detection.reason = "no known architecture has these tensor names";
    detection.prefix = prefix;
    return detection;
  }
  detection.preset = matches[0].preset;
  detection.confidence = matches[0].confidence;
  detection.reason = std::move(matches[0].reason);
  detection.prefix = std::move(matches[0].prefix);
  detection.variant = variant_of(*detection.preset, views, detection.prefix);
  for (size_t i = 1; i < matches.size(); ++i) {
    detection.runners_up.push_back({matches[i].preset, matches[i].confidence, std::move(matches[i].reason)});
  }
  return detection;
}

Detection detect_as(const Preset& preset, std::span<const io::TensorInfo> tensors, std::string_view prefix) {
  const auto views = views_of(tensors, prefix);
  Detection detection;
  detection.preset = &preset;
  detection.confidence = 100;
  detection.reason = "asked for";
  if (auto found = best_match(preset, views)) {
    detection.prefix = std::move(found->prefix);
  } else {
    // A preset without signatures, or one meant for other names: the wrapper is the one that detection sees.
    detection.prefix = detect(tensors, prefix).prefix;
  }
  detection.variant = variant_of(preset, views, detection.prefix);
  return detection;
}

}  // namespace mezzotint::convert
