#include "mezzotint/convert/inspect.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/checkpoint/suffixes.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;

// Formats of layers that are not compiled in, by layer name.
std::map<std::string, std::string, std::less<>> foreign_formats(const Model& model) {
  std::map<std::string, std::string, std::less<>> formats;
  for (const auto& [layer, text] : model.foreign_layers()) {
    const auto marker = nlohmann::json::parse(text, nullptr, false);
    formats.emplace(layer, marker.is_object() ? marker.value("format", "?") : "?");
  }
  return formats;
}

}  // namespace

Inspection inspect(const Model& model) {
  Inspection result;
  const auto& tensors = model.source().tensors();
  for (auto& component : find_components(tensors)) {
    Detection detection = detect(tensors, component.prefix);
    result.components.push_back({std::move(component), std::move(detection)});
  }

  const auto foreign = foreign_formats(model);
  std::map<std::string, StorageShare> shares;
  uint64_t matrix_elements = 0, matrix_bytes = 0;
  result.comfyui_loads = foreign.empty();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& info = tensors[i];
    const size_t owner = model.layer_of(i);
    if (owner == Model::npos) {
      const auto [layer, suffix] = checkpoint::split_name(info.name);
      const auto unknown = foreign.find(layer);
      const bool foreign_part = unknown != foreign.end() && suffix != "bias";
      const std::string label = foreign_part ? unknown->second : std::string(name(info.dtype));
      StorageShare& share = shares[label];
      share.label = label;
      if (foreign_part) share.foreign = unknown->second;
      share.bytes += info.bytes;
      if (foreign_part && suffix != "weight") continue;
      ++share.tensors;
      share.elements += element_count(info.shape).value_or(0);
      if (info.shape.size() < 2 || foreign_part) continue;
      matrix_elements += element_count(info.shape).value_or(0);
      matrix_bytes += info.bytes;
      continue;
    }
    const Layer& layer = model.layers()[owner];
    const std::string label = formats::Selection{layer.layout.format, layer.layout.options}.label();
    StorageShare& share = shares[label];
    share.label = label;
    share.format = layer.layout.format;
    share.bytes += info.bytes;
    if (model.role(i) == Role::codes || model.role(i) == Role::parameter) matrix_bytes += info.bytes;
    if (model.role(i) != Role::codes) continue;
    ++share.tensors;
    const uint64_t elements = element_count(layer.layout.shape).value_or(0);
    share.elements += elements;
    matrix_elements += elements;
    result.comfyui_loads = result.comfyui_loads && layer.layout.format->support.comfyui && layer.consistent;
  }
  for (auto& [label, share] : shares) {
    result.elements += share.elements;
    result.shares.push_back(std::move(share));
  }
  std::stable_sort(result.shares.begin(), result.shares.end(),
                   [](const StorageShare& a, const StorageShare& b) { return a.bytes > b.bytes; });
  std::set<std::string_view> dialects;
  for (const Layer& layer : model.layers()) {
    dialects.insert(checkpoint::name(layer.dialect));
    if (layer.marker_tensor) dialects.insert(checkpoint::name(checkpoint::Dialect::comfy_quant));
  }
  result.dialects.assign(dialects.begin(), dialects.end());
  result.file_bytes = model.source().total_bytes();
  if (matrix_elements > 0)
    result.bits_per_weight = 8.0 * static_cast<double>(matrix_bytes) / static_cast<double>(matrix_elements);
  result.origin = origin_of(model.source().metadata());
  return result;
}

}  // namespace mezzotint::convert
