#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"

/// Asking one format, or the whole table, what a stored layer is. `marker` is JSON text or "".
namespace mezzotint::formats {

inline Recognition recognise(const Format& format, const std::string& marker, std::vector<TensorFacts> tensors,
                             std::optional<int64_t> rows_hint = std::nullopt) {
  const nlohmann::json parsed = marker.empty() ? nlohmann::json() : nlohmann::json::parse(marker);
  StoredLayer layer;
  if (!marker.empty()) {
    layer.marker = &parsed;
    layer.label = parsed.at("format").get_ref<const std::string&>();
  }
  layer.tensors = std::move(tensors);
  layer.rows_hint = rows_hint;
  return format.recognise(layer);
}

struct Claim {
  std::string label;  ///< of the best claim, "" for none
  Fit fit = Fit::none;
  Recognition recognition;
};

/// Who takes the layer?
inline Claim claim(const std::string& marker, const std::vector<TensorFacts>& tensors) {
  Claim best;
  for (const Format* format : all_formats()) {
    Recognition recognition = recognise(*format, marker, tensors);
    if (recognition.fit <= best.fit) continue;
    best.fit = recognition.fit;
    best.label =
        recognition.layout.format ? Selection{format, recognition.layout.options}.label() : std::string(format->name);
    best.recognition = std::move(recognition);
  }
  return best;
}

inline std::string problems(const Claim& found) {
  std::string text;
  for (const auto& problem : found.recognition.problems) text += problem + "\n";
  return text;
}

}  // namespace mezzotint::formats
