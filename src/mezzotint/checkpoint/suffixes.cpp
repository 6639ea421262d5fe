#include "mezzotint/checkpoint/suffixes.h"

#include <set>

#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::checkpoint {
namespace {

// Asked from the formats themselves, on a shape that every block size of ours divides.
std::set<std::string, std::less<>> collect_suffixes() {
  std::set<std::string, std::less<>> names{std::string(kInputScale), std::string(kPreQuantScale),
                                           std::string(kMarkerSuffix)};
  for (const formats::Format* format : formats::all_formats()) {
    const auto description = format->describe({.shape = {256, 1024}}, formats::complete_options(*format, {}));
    if (!description.layout) continue;
    const auto& tensors = description.layout->tensors;
    for (size_t i = 1; i < tensors.size(); ++i) names.insert(tensors[i].suffix);
  }
  return names;
}

}  // namespace

std::pair<std::string_view, std::string_view> split_name(std::string_view tensor) {
  const size_t dot = tensor.rfind('.');
  if (dot == std::string_view::npos) return {{}, tensor};
  return {tensor.substr(0, dot), tensor.substr(dot + 1)};
}

std::string layer_name(const std::string& tensor) {
  return tensor.ends_with(kDotWeight) ? tensor.substr(0, tensor.size() - kDotWeight.size()) : tensor;
}

std::string_view canonical_suffix(std::string_view suffix) {
  if (suffix == "scale_weight") return "weight_scale";
  if (suffix == "scale_input") return kInputScale;
  return suffix;
}

bool is_quantization_suffix(std::string_view suffix) {
  static const auto names = collect_suffixes();
  return names.find(suffix) != names.end();
}

}  // namespace mezzotint::checkpoint
