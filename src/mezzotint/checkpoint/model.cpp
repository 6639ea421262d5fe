#include "mezzotint/checkpoint/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <map>
#include <unordered_map>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/markers_in.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/formats/driver.h"

namespace mezzotint::checkpoint {

std::string_view name(Dialect dialect) {
  constexpr std::string_view names[] = {"comfy_quant", "header", "scaled_fp8", "inferred"};
  return names[static_cast<size_t>(dialect)];
}

namespace {

formats::Recognition recognise(const formats::StoredLayer& stored) {
  formats::Recognition best;
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->quantized) continue;
    formats::Recognition candidate = format->recognise(stored);
    if (candidate.fit > best.fit) best = std::move(candidate);
  }
  return best;
}

}  // namespace

/// Groups tensors by layer, reads the markers and asks the formats.
class ModelBuilder {
 public:
  explicit ModelBuilder(Model& model) : model_(model), tensors_(model.source_.tensors()) {}

  void build() {
    model_.roles_.assign(tensors_.size(), Role::plain);
    model_.layer_of_.assign(tensors_.size(), Model::npos);
    model_.foreign_.assign(tensors_.size(), false);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto [layer, suffix] = split_name(tensors_[i].name);
      groups_[layer].push_back({canonical_suffix(suffix), i});
    }
    markers_ = read_markers(model_.source_, model_.findings_);
    model_.has_header_metadata_ = markers_.has_header;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const auto [layer, suffix] = split_name(tensors_[i].name);
      // A weight without a layer's name is no loader's layer.
      if (suffix == "weight" && !layer.empty()) consider(layer, i);
      // Where the header has metadata the marker has no say, but it is one all the same.
      if (suffix == kFileMarker) model_.roles_[i] = Role::file_marker;
    }
    find_orphans();
  }

 private:
  struct Sibling {
    std::string_view suffix;  // in today's spelling
    size_t tensor;
  };

  const LegacyMarker* legacy_marker(std::string_view layer) const {
    const LegacyMarker* best = nullptr;
    for (const auto& marker : markers_.legacy)
      if (layer.starts_with(marker.prefix) && (best == nullptr || marker.prefix.size() > best->prefix.size()))
        best = &marker;
    return best;
  }

  void consider(std::string_view layer, size_t weight) {
    const auto& siblings = groups_.at(layer);
    const auto marker = markers_.layers.find(layer);
    bool has_parameter = false;
    for (const Sibling& sibling : siblings) has_parameter |= is_quantization_suffix(sibling.suffix);
    if (marker == markers_.layers.end() && !has_parameter) return;

    formats::StoredLayer stored;
    stored.tensors.push_back({"weight", tensors_[weight].dtype, tensors_[weight].shape});
    for (const Sibling& sibling : siblings) {
      if (sibling.tensor == weight) continue;
      stored.tensors.push_back(
          {std::string(sibling.suffix), tensors_[sibling.tensor].dtype, tensors_[sibling.tensor].shape});
      if (sibling.suffix == "bias" && !tensors_[sibling.tensor].shape.empty())
        stored.rows_hint = tensors_[sibling.tensor].shape.back();
    }
    std::string label;
    if (marker != markers_.layers.end()) {
      label = marker->second.object.at("format").get<std::string>();
      stored.marker = &marker->second.object;
    }
    stored.label = label;

    formats::Recognition found = recognise(stored);
    if (found.fit == formats::Fit::none || found.layout.format == nullptr)
      return unknown(layer, weight, label, marker, found.problems);
    add_layer(layer, weight, std::move(found), label, marker);
  }

  using MarkerIterator = std::map<std::string, LayerMarker, std::less<>>::const_iterator;

  void unknown(std::string_view layer, size_t weight, const std::string& label, MarkerIterator marker,
               const std::vector<std::string>& problems) {
    if (label.empty()) return;  // scales beside a float weight: orphans
    for (const auto& problem : problems)
      model_.findings_.push_back({Severity::error, "broken-layer", std::string(layer), problem, false});
    if (problems.empty())
      model_.findings_.push_back(
          {Severity::error, "unknown-format", std::string(layer),
           fmt::format("The marker says '{}', which this program does not know or a {} weight of shape {} cannot be.",
                       label, mezzotint::name(tensors_[weight].dtype), to_string(tensors_[weight].shape)),
           false});
    model_.foreign_layers_.emplace_back(layer, marker->second.verbatim);
    for (const Sibling& sibling : groups_.at(layer))
      if (sibling.suffix != kFileMarker) model_.foreign_[sibling.tensor] = true;
  }

  void add_layer(std::string_view layer, size_t weight, formats::Recognition found, const std::string& label,
                 MarkerIterator marker) {
    Layer entry;
    entry.name = layer;
    entry.layout = std::move(found.layout);
    entry.consistent = found.fit != formats::Fit::broken;
    const LegacyMarker* legacy = legacy_marker(layer);
    if (marker != markers_.layers.end()) {
      entry.dialect = marker->second.dialect;
      entry.marker = marker->second.object.dump();
      const auto flag = marker->second.object.find("full_precision_matrix_mult");
      entry.full_precision_matrix_mult = flag != marker->second.object.end() && flag->is_boolean() && flag->get<bool>();
    } else if (legacy != nullptr) {
      entry.dialect = Dialect::scaled_fp8;
      entry.full_precision_matrix_mult = legacy->full_precision_matrix_mult;
    }
    report(entry, found, label);

    const size_t index = model_.layers_.size();
    entry.parts.push_back(weight);
    claim(weight, index, Role::codes);
    for (size_t i = 1; i < entry.layout.tensors.size(); ++i) {
      const size_t tensor = sibling(layer, entry.layout.tensors[i].suffix);
      if (tensor == io::Source::npos) {
        entry.consistent = false;
        continue;
      }
      entry.parts.push_back(tensor);
      claim(tensor, index, Role::parameter);
    }
    if (entry.parts.size() != std::max<size_t>(entry.layout.tensors.size(), 1)) entry.consistent = false;
    for (const auto& [suffix, member] :
         {std::pair{kInputScale, &Layer::input_scale}, std::pair{kPreQuantScale, &Layer::pre_quant_scale}}) {
      const size_t tensor = sibling(layer, suffix);
      if (tensor == io::Source::npos || is_unit_placeholder(entry.dialect, tensor)) continue;
      entry.*member = tensor;
      claim(tensor, index, Role::activation);
    }
    const auto companions = entry.layout.format->companions;
    if (entry.pre_quant_scale && std::find(companions.begin(), companions.end(), kPreQuantScale) != companions.end()) {
      entry.smoothed = true;  // of other formats, loaders read no such tensor
      entry.consistent = entry.consistent && are_smoothing_factors(tensors_[*entry.pre_quant_scale], entry.layout);
    }
    if (const auto tensor = markers_.tensors.find(layer); tensor != markers_.tensors.end()) {
      entry.marker_tensor = tensor->second;
      claim(tensor->second, index, Role::marker);
    }
    model_.layers_.push_back(std::move(entry));
  }

  void report(const Layer& layer, const formats::Recognition& found, const std::string& label) {
    const auto add = [&](Severity severity, std::string_view code, std::string message, bool repairable) {
      model_.findings_.push_back({severity, code, layer.name, std::move(message), repairable});
    };
    const std::string_view format = layer.layout.format->name;
    switch (found.fit) {
      case formats::Fit::broken:
        for (const auto& problem : found.problems) add(Severity::error, "broken-layer", problem, false);
        return;
      case formats::Fit::mislabelled:
        add(Severity::error, "mislabelled", fmt::format("The marker says '{}', but the bytes are '{}'.", label, format),
            true);
        break;
      case formats::Fit::unlabelled:
        if (layer.dialect == Dialect::inferred)
          add(Severity::error, "missing-marker",
              fmt::format("The layer has scales but no marker; its bytes are '{}'. ComfyUI would load the codes as if "
                          "they were the weight.",
                          format),
              true);
        break;
      default:
        break;
    }
    if (!layer.layout.flaw.empty()) add(Severity::error, "unusable-codes", layer.layout.flaw, false);
    for (const auto& problem : found.problems) add(Severity::error, "wrong-shape-or-dtype", problem, true);
  }

  void find_orphans() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (model_.roles_[i] != Role::plain || model_.foreign_[i]) continue;
      const auto [layer, suffix] = split_name(tensors_[i].name);
      if (!is_quantization_suffix(canonical_suffix(suffix))) continue;
      model_.roles_[i] = Role::orphan;
      const bool placeholder = legacy_marker(layer) != nullptr && is_placeholder(layer, i);
      model_.findings_.push_back(
          {placeholder ? Severity::note : Severity::error, suffix == kMarkerSuffix ? "orphan-marker" : "orphan-scale",
           tensors_[i].name,
           placeholder ? "A placeholder of the legacy dialect, which loaders leave out."
                       : "No quantized weight belongs to this tensor; loaders ignore it or fail far away.",
           true});
    }
  }

  /// Legacy writers put scales beside every weight, and an activation scale of one where none was measured. The scale
  /// of a weight of one-byte codes is no placeholder, even where we cannot read it.
  bool is_placeholder(std::string_view layer, size_t tensor) const {
    const size_t weight = sibling(layer, "weight");
    if (weight == io::Source::npos) return false;
    const DType dtype = tensors_[weight].dtype;
    if (dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16) return true;
    return model_.roles_[weight] == Role::codes && is_unit_placeholder(Dialect::scaled_fp8, tensor);
  }

  /// ComfyUI leaves out `scale_input` where it is 1.
  bool is_unit_placeholder(Dialect dialect, size_t tensor) const {
    const io::TensorInfo& info = tensors_[tensor];
    if (dialect != Dialect::scaled_fp8 || !info.name.ends_with(".scale_input") || !facts(info.dtype).is_float ||
        element_count(info.shape) != uint64_t{1} || facts(info.dtype).bits < 16)
      return false;
    const auto bytes = formats::canonical_parameter({std::string(kInputScale), DType::f32, {}}, info.dtype, info.shape,
                                                    model_.source_.read_all(tensor));
    float value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value == 1.0f;
  }

  /// Today's spelling wins over an older one of the same thing.
  size_t sibling(std::string_view layer, std::string_view suffix) const {
    size_t found = io::Source::npos;
    for (const Sibling& entry : groups_.at(layer))
      if (entry.suffix == suffix && (found == io::Source::npos || tensors_[entry.tensor].name.ends_with(suffix)))
        found = entry.tensor;
    return found;
  }

  void claim(size_t tensor, size_t layer, Role role) {
    model_.roles_[tensor] = role;
    model_.layer_of_[tensor] = layer;
  }

  Model& model_;
  const std::vector<io::TensorInfo>& tensors_;
  std::unordered_map<std::string_view, std::vector<Sibling>> groups_;
  MarkerSet markers_;
};

Model::Model(io::Source source) : source_(std::move(source)) {
  ModelBuilder(*this).build();
}

Model Model::open(const std::filesystem::path& path) {
  return Model(io::Source::open(path));
}

formats::Parameters Model::parameters(const Layer& layer) const {
  assert(layer.consistent);
  formats::Parameters parameters;
  parameters.tensors.resize(layer.layout.tensors.size());
  for (size_t i = 1; i < layer.layout.tensors.size(); ++i) {
    const io::TensorInfo& info = source_.tensors()[layer.parts[i]];
    try {
      parameters.tensors[i] = formats::canonical_parameter(layer.layout.tensors[i], info.dtype, info.shape,
                                                           source_.read_all(layer.parts[i]));
    } catch (const Error& error) {
      ErrorInfo located = error.info();
      located.file = source_.files()[info.file].string();
      located.tensor = info.name;
      throw Error(located);
    }
  }
  return parameters;
}

void Model::read_codes(const Layer& layer, int64_t row0, int64_t rows, std::byte* into) const {
  const auto pitch = static_cast<uint64_t>(layer.layout.row_bytes);
  rows = layer.layout.code_rows(rows);
  source_.read(layer.parts[0], static_cast<uint64_t>(layer.layout.stored_row(row0)) * pitch, into,
               static_cast<uint64_t>(rows) * pitch);
}

}  // namespace mezzotint::checkpoint
