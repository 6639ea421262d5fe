#include "mezzotint/checkpoint/markers_in.h"

#include <fmt/format.h>

#include "mezzotint/base/json_depth.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/suffixes.h"

namespace mezzotint::checkpoint {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxMarkerBytes = 1 << 20;

// Keys that change what ComfyUI computes; others (orig_dtype, per_row, ...) may differ between the two marker forms.
// A writer may leave out what is the default.
struct EffectiveKey {
  std::string_view name;
  json otherwise;
};
const std::vector<EffectiveKey>& effective_keys() {
  static const std::vector<EffectiveKey> keys = {{"format", nullptr},        {"convrot", false},
                                                 {"convrot_groupsize", 256}, {"linear_dtype", "int4"},
                                                 {"group_size", nullptr},    {"full_precision_matrix_mult", false}};
  return keys;
}

// An older writer nested the options under "params"; the top level wins where both exist.
void flatten_params(json& object) {
  const auto params = object.find("params");
  if (params == object.end() || !params->is_object()) return;
  const json nested = *params;
  for (const auto& [key, value] : nested.items())
    if (!object.contains(key)) object[key] = value;
  object.erase("params");
}

const std::string* find_metadata(const io::Metadata& metadata, std::string_view key) {
  for (const auto& [name, value] : metadata)
    if (name == key) return &value;
  return nullptr;
}

// The loader of diffusion models accepts layer names with or without the model's prefix.
std::string resolve_layer(const io::Source& source, const std::string& layer) {
  if (source.find(layer + ".weight") != io::Source::npos) return layer;
  for (const std::string_view prefix : {"model.diffusion_model.", "diffusion_model.", "model."}) {
    std::string candidate = std::string(prefix) + layer;
    if (source.find(candidate + ".weight") != io::Source::npos) return candidate;
    if (layer.starts_with(prefix) && source.find(layer.substr(prefix.size()) + ".weight") != io::Source::npos)
      return layer.substr(prefix.size());
  }
  return layer;
}

void read_header_form(const io::Source& source, MarkerSet& set, std::vector<Finding>& findings) {
  const std::string* text = find_metadata(source.metadata(), kHeaderKey);
  if (text == nullptr) return;
  set.has_header = true;
  const auto complain = [&](std::string message) {
    findings.push_back({Severity::error, "bad-header-metadata", std::string(kHeaderKey), std::move(message), true});
  };
  const json root = parse_foreign_json(*text);
  if (root.is_discarded()) return complain("The header's _quantization_metadata is not JSON.");
  if (!root.is_object() || !root.contains("layers") || !root["layers"].is_object())
    return complain("The header's _quantization_metadata has no object 'layers'; ComfyUI stops with a KeyError.");
  size_t bare = 0;
  for (const auto& [name, value] : root["layers"].items()) {
    json object = value;
    if (object.is_string()) {
      object = json{{"format", value}};
      ++bare;
    }
    if (!object.is_object() || !object.contains("format") || !object["format"].is_string()) {
      findings.push_back({Severity::error, "bad-marker", name,
                          "The header's entry for this layer names no format; ComfyUI refuses it.", false});
      continue;
    }
    std::string verbatim = object.dump();
    flatten_params(object);
    const std::string layer = resolve_layer(source, name);
    if (layer != name)
      findings.push_back({Severity::warning, "prefix-mismatch", name,
                          fmt::format("The header names this layer without the file's prefix ('{}'); loaders of whole "
                                      "checkpoints do not find it.",
                                      layer),
                          true});
    if (source.find(layer + ".weight") == io::Source::npos) {
      findings.push_back({Severity::warning, "orphan-marker", name,
                          "The header has a marker for this layer, but the file has no weight of that name.", true});
      continue;
    }
    set.layers[layer] = {std::move(object), std::move(verbatim), Dialect::header};
  }
  if (bare > 0)
    complain(
        fmt::format("The header lists {} layers by bare format names (an old form); today's ComfyUI stops with an "
                    "AttributeError.",
                    bare));
}

void read_tensor_form(const io::Source& source, MarkerSet& set, std::vector<Finding>& findings) {
  const auto& tensors = source.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [layer, suffix] = split_name(tensors[i].name);
    if (suffix != kMarkerSuffix) continue;
    set.tensors.emplace(layer, i);
    const bool bytes = tensors[i].dtype == DType::u8 || tensors[i].dtype == DType::i8;
    json object;
    if (bytes && tensors[i].bytes <= kMaxMarkerBytes) {
      const auto raw = source.read_all(i);
      const auto* begin = reinterpret_cast<const char*>(raw.data());
      object = parse_foreign_json({begin, raw.size()});
    }
    if (!object.is_object() || !object.contains("format") || !object["format"].is_string()) {
      findings.push_back({Severity::error, "bad-marker", std::string(layer),
                          "The .comfy_quant tensor does not hold a JSON object with a 'format'.", true});
      continue;
    }
    std::string verbatim = object.dump();
    flatten_params(object);
    const auto header = set.layers.find(layer);
    if (header == set.layers.end()) {
      set.layers[std::string(layer)] = {std::move(object), std::move(verbatim), Dialect::comfy_quant};
      continue;
    }
    for (const auto& [key, otherwise] : effective_keys()) {
      const auto value_or_default = [&](const json& from) {
        return from.contains(key) ? from.at(std::string(key)) : otherwise;
      };
      const json ours = value_or_default(object), theirs = value_or_default(header->second.object);
      // Block and group sizes are implied by the format in some writers' header form.
      if (ours == theirs || (key == "group_size" && (ours.is_null() || theirs.is_null()))) continue;
      findings.push_back({Severity::error, "markers-disagree", std::string(layer),
                          fmt::format("The .comfy_quant tensor says {} = {}, the header says {}; ComfyUI believes the "
                                      "header.",
                                      key, ours.dump(), theirs.dump()),
                          false});
    }
  }
}

void read_legacy_form(const io::Source& source, MarkerSet& set) {
  if (set.has_header) return;
  const auto& tensors = source.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [layer, suffix] = split_name(tensors[i].name);
    if (suffix != kFileMarker) continue;
    LegacyMarker marker;
    marker.prefix = layer.empty() ? std::string() : std::string(layer) + ".";
    marker.tensor = i;
    marker.full_precision_matrix_mult = element_count(tensors[i].shape) == uint64_t{2};
    set.legacy.push_back(std::move(marker));
  }
}

}  // namespace

json parse_foreign_json(std::string_view text) {
  if (json_too_deep(text)) return json(json::value_t::discarded);
  return json::parse(text, nullptr, false);
}

MarkerSet read_markers(const io::Source& source, std::vector<Finding>& findings) {
  MarkerSet set;
  read_header_form(source, set, findings);
  read_tensor_form(source, set, findings);
  read_legacy_form(source, set);
  return set;
}

}  // namespace mezzotint::checkpoint
