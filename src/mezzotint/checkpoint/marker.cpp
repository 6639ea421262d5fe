#include "mezzotint/checkpoint/marker.h"

#include <cassert>
#include <nlohmann/json.hpp>

namespace mezzotint::checkpoint {
namespace {

// Python's json.dumps puts a space after ',' and ':' and none inside brackets; nlohmann can do neither.
void dump(const nlohmann::ordered_json& value, std::string& out) {
  if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!first) out += ", ";
      first = false;
      out += nlohmann::json(key).dump() + ": ";
      dump(item, out);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    bool first = true;
    for (const auto& item : value) {
      if (!first) out += ", ";
      first = false;
      dump(item, out);
    }
    out += ']';
  } else {
    out += value.dump();
  }
}

}  // namespace

std::string json_text(const nlohmann::ordered_json& value) {
  std::string text;
  dump(value, text);
  return text;
}

std::string marker_text(const formats::Layout& layout, bool full_precision_matrix_mult) {
  assert(layout.format != nullptr && layout.format->quantized);
  nlohmann::ordered_json object;
  object["format"] = layout.format->name;
  if (layout.format->marker != nullptr) layout.format->marker(layout, object);
  if (full_precision_matrix_mult) object["full_precision_matrix_mult"] = true;
  return json_text(object);
}

std::string header_text(std::span<const std::pair<std::string, std::string>> layers) {
  // Markers are JSON texts already: the object is assembled as text, so that both forms hold the same characters.
  std::string text = R"({"format_version": "1.0", "layers": {)";
  bool first = true;
  for (const auto& [layer, marker] : layers) {
    if (!first) text += ", ";
    first = false;
    text += nlohmann::json(layer).dump() + ": " + marker;
  }
  return text + "}}";
}

}  // namespace mezzotint::checkpoint
