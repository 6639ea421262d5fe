#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"

/// Asking the whole table what a stored layer is.
namespace mezzotint::formats {

struct Claim {
  std::string label;  ///< of the best claim, "" for none
  Fit fit = Fit::none;
  Recognition recognition;
};

/// Who takes the layer? `marker` is JSON text or "".
inline Claim claim(const std::string& marker, std::vector<TensorFacts> tensors) {
  const nlohmann::json parsed = marker.empty() ? nlohmann::json() : nlohmann::json::parse(marker);
  StoredLayer layer;
  if (!marker.empty()) {
    layer.marker = &parsed;
    layer.label = parsed.at("format").get_ref<const std::string&>();
  }
  layer.tensors = std::move(tensors);
  Claim best;
  for (const Format* format : all_formats()) {
    Recognition recognition = format->recognise(layer);
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
