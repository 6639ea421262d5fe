#include "mezzotint/convert/budget/candidates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/layer_config.h"

namespace mezzotint::convert {
namespace {

using Json = nlohmann::ordered_json;

using checkpoint::kDotWeight;
using checkpoint::layer_name;
constexpr const char* kKeep = "";

/// What the user's layer config says about layers, with and without the prefixes that its patterns may leave out.
class UserConfig {
 public:
  UserConfig(const checkpoint::Model& model, const ConvertOptions& options) : tensors_(model.source().tensors()) {
    if (options.layer_config.empty()) return;
    std::vector<std::string> names;
    for (const auto& info : tensors_)
      if (info.name.ends_with(kDotWeight)) names.push_back(layer_name(info.name));
    config_ = LayerConfig::parse(options.layer_config, names, options.layer_config_fullmatch);
    components_ = find_components(tensors_);
    for (const Component& component : components_) {
      const bool automatic = options.preset == "auto" || options.preset == "none";
      prefixes_.push_back(automatic ? detect(tensors_, component.prefix).prefix
                                    : detect_as(select_preset(options.preset), tensors_, component.prefix).prefix);
    }
  }

  bool decides(const std::string& layer) const {
    if (!config_) return false;
    const auto settles = [](const LayerSettings* entry) { return entry && (entry->skip || entry->selection); };
    const LayerSettings* entry = find(layer);
    return settles(entry) || settles(config_->fallback());
  }

  /// The fields beside the format that an entry for this layer has to repeat.
  Json fields(const std::string& layer) const {
    Json object = Json::object();
    const LayerSettings* entry = config_ ? find(layer) : nullptr;
    if (entry == nullptr) return object;
    if (entry->simple) object["simple"] = *entry->simple;
    if (entry->full_precision_matrix_mult) object["full_precision_matrix_mult"] = *entry->full_precision_matrix_mult;
    return object;
  }

 private:
  const LayerSettings* find(const std::string& layer) const {
    const std::string& prefix = prefixes_[component_of(components_, layer)];
    const std::string_view name = layer;
    return config_->find(name, name.starts_with(prefix) ? name.substr(prefix.size()) : name);
  }

  const std::vector<io::TensorInfo>& tensors_;
  std::optional<LayerConfig> config_;
  std::vector<Component> components_;
  std::vector<std::string> prefixes_;
};

/// Characters that a text takes as a part of a JSON string.
uint64_t escaped_size(std::string_view text) {
  return text.size() +
         static_cast<uint64_t>(std::count_if(text.begin(), text.end(), [](char c) { return c == '"' || c == '\\'; }));
}

/// The plain format of a dtype by its name, or the dtype's own.
std::string plain_label(DType dtype) {
  for (const formats::Format* format : formats::all_formats()) {
    if (format->quantized || !format->writable) continue;
    const auto layout = format->describe({.shape = {1, 1}}, formats::complete_options(*format, {})).layout;
    if (layout && layout->tensors[0].dtype == dtype) return std::string(format->name);
  }
  return std::string(name(dtype));
}

/// What one row adds to the header: its tensors' entries and its marker's copy in the metadata.
uint64_t header_size(const PlanRow& row, const std::string& layer, const checkpoint::Model& model) {
  constexpr uint64_t kEntry = std::string_view(R"("":{"dtype":"","shape":[],"data_offsets":[,]},)").size();
  constexpr uint64_t kMarkerEntry = std::string_view(R"(\"\": , )").size();
  const uint64_t offsets = 2 * std::to_string(model.source().tensors().back().offset).size();
  const auto entry = [&](uint64_t name_size, DType dtype, const Shape& shape) {
    uint64_t size = kEntry + name_size + name(dtype).size() + offsets;
    for (const int64_t dimension : shape) size += std::to_string(dimension).size() + 1;
    return size - (shape.empty() ? 0 : 1);
  };
  if (!row.layout)
    return entry(layer.size() + kDotWeight.size(), model.source().tensors()[row.source].dtype, row.shape);
  uint64_t size = 0;
  for (const auto& stored : row.layout->tensors)
    size += entry(layer.size() + 1 + stored.suffix.size(), stored.dtype, stored.shape);
  if (!row.layout->format->quantized) return size;
  size += entry(layer.size() + std::string_view(".comfy_quant").size(), DType::u8,
                {static_cast<int64_t>(row.marker.size())});
  return size + kMarkerEntry + escaped_size(layer) + escaped_size(row.marker);
}

/// Whether a plain tensor already is what the format would make of it, or holds no more bits than a plain format:
/// keeping it is exact and no larger.
bool is_kept(const formats::Selection& selection, const Shape& shape, DType dtype) {
  const auto layout = selection.format->describe({.shape = shape}, selection.options).layout;
  if (!layout) return false;
  const DType stored = layout->tensors[0].dtype;
  return stored == dtype || (!selection.format->quantized && facts(stored).bits >= facts(dtype).bits);
}

/// What decides formats and sizes of layers: adapters that are not merged do not.
ConvertOptions without_adapters(ConvertOptions options) {
  options.scale_loras.clear();
  options.calibration_loras.clear();
  return options;
}

}  // namespace

FormatCandidates::FormatCandidates(const checkpoint::Model& model, std::filesystem::path output, ConvertOptions options,
                                   std::vector<NamedFormat> formats, bool uniform)
    : model_(&model), output_(std::move(output)), options_(std::move(options)), formats_(std::move(formats)) {
  const auto first = std::find_if(formats_.begin(), formats_.end(),
                                  [](const NamedFormat& format) { return format.selection.format->quantized; });
  if (first == formats_.end())
    throw Error({.name = "bad-option",
                 .problem = "a choice of formats needs at least one that quantizes",
                 .advice = "`mezzotint formats` lists them."});
  options_.to = first->text;
  find_layers(uniform);
  if (layers_.empty())
    throw Error({.name = "nothing-to-choose",
                 .problem = "no layer is left whose format could be chosen",
                 .file = model.source().files().front().string(),
                 .advice = "The rules, --exclude or the layer config (a recipe's too) decide over every layer; "
                           "`mezzotint plan` says which."});
  for (const NamedFormat& format : formats_) add_format(format);
}

void FormatCandidates::find_layers(bool uniform) {
  const UserConfig user(*model_, options_);
  ConvertOptions options = without_adapters(options_);
  options.fallback.clear();  // what it is for is kept by a rule
  std::map<size_t, FormatLayer> found;
  for (const NamedFormat& format : formats_) {
    if (!format.selection.format->quantized || (uniform && format.text != options_.to)) continue;
    options.to = format.text;
    const Plan plan = make_plan(*model_, output_, options, 1);
    for (const PlanRow& row : plan.rows) {
      const bool becomes = row.action == Action::encode || row.action == Action::reencode;
      if (!becomes || !row.layout->format->quantized) continue;
      const std::string name = layer_name(model_->source().tensors()[row.source].name);
      // The layer config takes such names for comments.
      if (!user.decides(name) && !name.starts_with('_'))
        found.try_emplace(row.source, FormatLayer{name, row.source, row.layer, row.shape, {}});
    }
  }
  for (auto& [tensor, layer] : found) {
    fields_.push_back(user.fields(layer.name).dump());
    layers_.push_back(std::move(layer));
  }
}

void FormatCandidates::add_format(const NamedFormat& format) {
  const auto& [text, selection] = format;
  const ConvertOptions options = with_entries(std::vector<std::string>(layers_.size(), text));
  const Plan plan = make_plan(*model_, output_, without_adapters(options), 1);
  std::map<size_t, const PlanRow*> rows;
  for (const PlanRow& row : plan.rows) rows.emplace(row.source, &row);
  for (size_t i = 0; i < layers_.size(); ++i) {
    FormatLayer& layer = layers_[i];
    const PlanRow& row = *rows.at(layer.tensor);
    const io::TensorInfo& info = model_->source().tensors()[layer.tensor];
    LayerFormat candidate{.label = row.to, .asked = text, .stored_bytes = row.bytes_out};
    if (layer.layer == checkpoint::Model::npos && is_kept(selection, layer.shape, info.dtype)) {
      candidate.label = plain_label(info.dtype);
      candidate.asked = kKeep;
      candidate.stored_bytes = info.bytes;
      candidate.exact = true;
    } else if (row.action == Action::keep_codes && row.layout->format == selection.format) {
      candidate.exact = true;
    } else if ((row.action == Action::encode || row.action == Action::reencode) &&
               row.layout->format == selection.format) {
      candidate.layout = row.layout;
      candidate.effort = row.method.effort;
    } else {
      continue;  // the shape cannot have it
    }
    PlanRow kept = row;
    if (candidate.asked.empty()) kept.layout.reset();
    candidate.header_bytes = header_size(kept, layer.name, *model_);
    const std::string entry = candidate.asked.empty() ? R"({"skip":true})" : R"({"format":")" + text + "\"}";
    candidate.entry_bytes = escaped_size("\"" + layer.name + "\":" + entry + ",");
    layer.formats.push_back(std::move(candidate));
  }
}

void FormatCandidates::set_default_format(const NamedFormat& format) {
  assert(format.selection.format->quantized);
  options_.to = format.text;
}

ConvertOptions FormatCandidates::with_entries(const std::vector<std::string>& asked) const {
  Json root = options_.layer_config.empty() ? Json::object() : Json::parse(options_.layer_config);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (asked[i] == options_.to) continue;
    Json entry = Json::parse(fields_[i]);
    if (asked[i] == kKeep)
      entry = {{"skip", true}};
    else
      entry["format"] = asked[i];
    root.erase(layers_[i].name + std::string(kDotWeight));  // the same key in another spelling
    root[layers_[i].name] = std::move(entry);
  }
  ConvertOptions options = options_;
  if (!root.empty()) options.layer_config = root.dump();
  return options;
}

ConvertOptions FormatCandidates::with(const std::vector<size_t>& choice) const {
  assert(choice.size() == layers_.size());
  std::vector<std::string> asked;
  for (size_t i = 0; i < choice.size(); ++i) asked.push_back(layers_[i].formats[choice[i]].asked);
  return with_entries(asked);
}

Plan FormatCandidates::plan(const std::vector<size_t>& choice) const {
  return make_plan(*model_, output_, with(choice), 1);
}

}  // namespace mezzotint::convert
