#include "mezzotint/convert/edit.h"

#include <fmt/format.h>

#include <deque>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/rewrite.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Dialect;
using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;
using nlohmann::ordered_json;

// The marker of one layer on its way into the output.
struct Marker {
  std::string source_layer;  ///< "" for layers of added files
  std::string layer;         ///< name in the output
  std::string text;
  bool has_tensor = false;
  bool edited = false;
};

[[noreturn]] void nothing_matches(std::string_view option, const std::string& pattern, const std::string& file) {
  throw Error({.name = "nothing-matches",
               .problem = fmt::format("the {} '{}' matches nothing", option, pattern),
               .file = file,
               .advice = "`mezzotint inspect --layers` lists the names."});
}

std::string without_weight(const std::string& tensor) {
  return tensor.ends_with(checkpoint::kDotWeight) ? checkpoint::layer_name(tensor) : std::string();
}

// "format" first, as every writer does; the rest in the order it had.
std::string marker_json(const ordered_json& object) {
  ordered_json sorted;
  sorted["format"] = object.at("format");
  for (const auto& [key, value] : object.items())
    if (key != "format") sorted[key] = value;
  return checkpoint::json_text(sorted);
}

class Editor {
 public:
  Editor(const Model& model, const EditOptions& edits)
      : model_(model),
        edits_(edits),
        tensors_(model.source().tensors()),
        file_(model.source().files().at(0).string()) {}

  void plan() {
    remove_tensors();
    rename_tensors();
    collect_markers();
    edit_fields();
    add_files();
    edit_metadata();
    if (changes_.empty())
      throw Error({.name = "nothing-to-edit",
                   .problem = "no change was asked for",
                   .file = file_,
                   .advice = "`mezzotint edit --help` lists the changes."});
    build_items();
  }

  std::vector<std::string> write(const std::filesystem::path& output, const ExecuteOptions& options) {
    std::vector<const io::Source*> inputs{&model_.source()};
    for (const Model& added : added_) inputs.push_back(&added.source());
    rewrite(output, items_, {.metadata = metadata_, .max_shard_bytes = edits_.max_shard_bytes}, options, inputs);
    return std::move(changes_);
  }

 private:
  void remove_tensors() {
    removed_.assign(tensors_.size(), false);
    for (const auto& text : edits_.remove_tensors) {
      const Regex pattern(text);
      bool any = false;
      for (size_t i = 0; i < tensors_.size(); ++i) {
        if (!pattern.search(tensors_[i].name)) continue;
        removed_[i] = any = true;
      }
      if (!any) nothing_matches("tensor pattern", text, file_);
    }
    for (const Layer& layer : model_.layers()) {
      if (removed_[layer.parts[0]]) {  // what belongs to a weight goes with it
        for (const size_t part : layer.parts) removed_[part] = true;
        for (const auto& tensor : {layer.marker_tensor, layer.input_scale, layer.pre_quant_scale})
          if (tensor) removed_[*tensor] = true;
        continue;
      }
      std::vector<size_t> parts = layer.parts;
      if (layer.smoothed) parts.push_back(*layer.pre_quant_scale);
      for (const size_t part : parts)
        if (removed_[part])
          throw Error({.name = "edit-breaks-layer",
                       .problem = "this parameter cannot be removed while its weight stays",
                       .file = file_,
                       .tensor = tensors_[part].name,
                       .advice = "Remove the layer's weight too, or convert it to a plain format first."});
    }
    for (size_t i = 0; i < tensors_.size(); ++i)
      if (removed_[i]) changes_.push_back(fmt::format("remove tensor {}", tensors_[i].name));
  }

  void rename_tensors() {
    names_.resize(tensors_.size());
    std::vector<bool> used(edits_.rename_tensors.size(), false);
    std::vector<Regex> patterns;
    for (const auto& [from, to] : edits_.rename_tensors) patterns.emplace_back(from);
    const auto renamed = [&](std::string name) {
      for (size_t k = 0; k < patterns.size(); ++k) {
        if (!patterns[k].search(name)) continue;
        used[k] = true;
        name = patterns[k].replace(name, edits_.rename_tensors[k].second);
      }
      return name;
    };
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const size_t owner = model_.layer_of(i);
      if (owner == Model::npos) {
        names_[i] = renamed(tensors_[i].name);
      } else {  // scales and markers follow their weight
        const std::string& layer = model_.layers()[owner].name;
        const std::string weight = renamed(layer + ".weight");
        const std::string moved = without_weight(weight);
        if (moved.empty())
          throw Error({.name = "edit-breaks-layer",
                       .problem = fmt::format("a quantized weight would be renamed to '{}'", weight),
                       .file = file_,
                       .tensor = layer + ".weight",
                       .expected = "a name that ends in .weight",
                       .advice = "Change the replacement."});
        names_[i] = moved + tensors_[i].name.substr(layer.size());
      }
      if (!removed_[i] && names_[i] != tensors_[i].name)
        changes_.push_back(fmt::format("rename {} -> {}", tensors_[i].name, names_[i]));
    }
    for (size_t k = 0; k < used.size(); ++k)
      if (!used[k]) nothing_matches("rename pattern", edits_.rename_tensors[k].first, file_);
  }

  void collect_markers() {
    for (const Layer& layer : model_.layers()) {
      const size_t weight = layer.parts[0];
      legacy_ |= layer.dialect == Dialect::scaled_fp8;
      if (removed_[weight] || layer.marker.empty()) continue;
      if (layer.marker_tensor && removed_[*layer.marker_tensor]) continue;  // asked for: the header forgets it too
      markers_.push_back({layer.name, without_weight(names_[weight]), layer.marker, layer.marker_tensor.has_value()});
    }
    for (const auto& [layer, text] : model_.foreign_layers()) {
      const size_t weight = model_.source().find(layer + ".weight");
      if (weight == io::Source::npos || removed_[weight]) continue;
      const size_t tensor = model_.source().find(layer + "." + std::string(checkpoint::kMarkerSuffix));
      if (tensor != io::Source::npos && removed_[tensor]) continue;
      markers_.push_back({layer, without_weight(names_[weight]), text, tensor != io::Source::npos});
    }
  }

  void edit_fields() {
    if (edits_.set_fields.empty() && edits_.remove_fields.empty()) return;
    const Regex pattern(edits_.layers);
    bool any = false;
    for (const Layer& layer : model_.layers()) {
      if (!layer.marker.empty() || !pattern.search(layer.name)) continue;
      throw Error({.name = "no-marker",
                   .problem = "the layer has no marker to edit",
                   .file = file_,
                   .tensor = layer.name,
                   .advice = "Run `mezzotint repair` first; it writes markers for every layer that it recognises."});
    }
    for (Marker& marker : markers_) {
      if (!pattern.search(marker.source_layer)) continue;
      any = true;
      ordered_json object = ordered_json::parse(marker.text);
      const ordered_json before = object;
      for (const auto& key : edits_.remove_fields) {
        if (key == "format")
          throw Error({.name = "bad-field",
                       .problem = "the field 'format' cannot be removed from a marker",
                       .file = file_,
                       .advice = "Convert the layer to a plain format, or remove its .comfy_quant tensor."});
        object.erase(key);
      }
      for (const auto& [key, text] : edits_.set_fields) {
        ordered_json value = ordered_json::parse(text, nullptr, false);
        if (value.is_discarded()) value = text;  // a bare word is a string
        if (key == "format" && !value.is_string())
          throw Error(
              {.name = "bad-field", .problem = "the field 'format' must be a text", .file = file_, .found = text});
        object[key] = std::move(value);
      }
      if (object == before) continue;
      marker.text = marker_json(object);
      marker.edited = true;
      changes_.push_back(fmt::format("marker {}: {}", marker.layer, marker.text));
    }
    if (!any) nothing_matches("layer pattern", edits_.layers, file_);
  }

  void add_files() {
    for (const auto& path : edits_.add_tensors_from) {
      const Model& model = added_.emplace_back(Model::open(path));
      header_wanted_ |= model.has_header_metadata();
      for (const auto& tensor : model.source().tensors()) changes_.push_back(fmt::format("add tensor {}", tensor.name));
      const auto add = [&](const std::string& layer, const std::string& text) {
        const bool has_tensor =
            model.source().find(layer + "." + std::string(checkpoint::kMarkerSuffix)) != io::Source::npos;
        markers_.push_back({"", layer, text, has_tensor});
      };
      for (const Layer& layer : model.layers())
        if (!layer.marker.empty()) add(layer.name, layer.marker);
      for (const auto& [layer, text] : model.foreign_layers()) add(layer, text);
    }
  }

  void edit_metadata() {
    for (const auto& [key, value] : edits_.set_metadata)
      if (key == checkpoint::kHeaderKey)
        throw Error({.name = "reserved-metadata",
                     .problem = "the layers' markers in the header are written from the layers",
                     .file = file_,
                     .found = key,
                     .advice = "Use --set-field to change markers."});
    metadata_ = model_.source().metadata();
    for (const auto& key : edits_.remove_metadata) {
      if (std::erase_if(metadata_, [&](const auto& entry) { return entry.first == key; }) == 0)
        nothing_matches("metadata key", key, file_);
      changes_.push_back(fmt::format("remove metadata {}", key));
      header_removed_ |= key == checkpoint::kHeaderKey;
    }
    for (const auto& [key, value] : edits_.set_metadata) {
      set_metadata(key, value);
      changes_.push_back(fmt::format("set metadata {}", key));
    }
    write_header();
  }

  void set_metadata(std::string_view key, const std::string& value) {
    for (auto& [name, old] : metadata_) {
      if (name != key) continue;
      old = value;
      return;
    }
    metadata_.emplace_back(key, value);
  }

  // The header form is written anew as soon as anything that it says may have changed.
  void write_header() {
    if (header_removed_) return;
    bool edited = !added_.empty();
    for (const Marker& marker : markers_) edited |= marker.edited || marker.layer != marker.source_layer;
    size_t known = 0;
    for (const Layer& layer : model_.layers()) known += layer.marker.empty() ? 0 : 1;
    known += model_.foreign_layers().size();
    const bool removed = std::count_if(markers_.begin(), markers_.end(), [](const Marker& m) {
                           return !m.source_layer.empty();
                         }) < static_cast<std::ptrdiff_t>(known);
    if (!edited && !removed) return;
    bool fields = false;
    for (const Marker& marker : markers_) fields |= marker.edited;
    if (!model_.has_header_metadata() && !header_wanted_ && !fields) return;
    if (legacy_)
      throw Error({.name = "mixed-dialects",
                   .problem = "the file marks its layers by a scaled_fp8 tensor, which loaders ignore next to the "
                              "markers that this edit would write",
                   .file = file_,
                   .advice = "Run `mezzotint repair` first."});
    std::vector<std::pair<std::string, std::string>> layers;
    for (const Marker& marker : markers_) layers.emplace_back(marker.layer, marker.text);
    if (layers.empty())
      std::erase_if(metadata_, [](const auto& entry) { return entry.first == checkpoint::kHeaderKey; });
    else
      set_metadata(checkpoint::kHeaderKey, checkpoint::header_text(layers));
  }

  void build_items() {
    const std::string suffix = "." + std::string(checkpoint::kMarkerSuffix);
    std::set<std::string> written;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (removed_[i]) continue;
      const Marker* marker = edited_marker(tensors_[i].name);
      items_.push_back(marker != nullptr ? RewriteItem::text(names_[i], marker->text)
                                         : RewriteItem::copy(model_.source(), i, names_[i]));
    }
    for (const Model& added : added_)
      for (size_t i = 0; i < added.source().tensors().size(); ++i)
        items_.push_back(RewriteItem::copy(added.source(), i, added.source().tensors()[i].name));
    // A layer that only the header marked gets the other form where its marker was edited or the header goes away.
    const bool has_header = std::any_of(metadata_.begin(), metadata_.end(),
                                        [](const auto& e) { return e.first == checkpoint::kHeaderKey; });
    for (const Marker& marker : markers_) {
      if (marker.has_tensor || (has_header && !marker.edited)) continue;
      items_.push_back(RewriteItem::text(marker.layer + suffix, marker.text));
      if (!marker.edited) changes_.push_back(fmt::format("add tensor {}{}", marker.layer, suffix));
    }
  }

  const Marker* edited_marker(const std::string& tensor) const {
    const auto [layer, suffix] = checkpoint::split_name(tensor);
    if (suffix != checkpoint::kMarkerSuffix) return nullptr;
    for (const Marker& marker : markers_)
      if (marker.edited && marker.source_layer == layer) return &marker;
    return nullptr;
  }

  const Model& model_;
  const EditOptions& edits_;
  const std::vector<io::TensorInfo>& tensors_;
  const std::string file_;
  std::vector<bool> removed_;
  std::vector<std::string> names_;
  std::vector<Marker> markers_;
  std::deque<Model> added_;
  bool header_wanted_ = false, header_removed_ = false, legacy_ = false;
  io::Metadata metadata_;
  std::vector<RewriteItem> items_;
  std::vector<std::string> changes_;
};

}  // namespace

std::vector<std::string> edit(const Model& model, const std::filesystem::path& output, const EditOptions& edits,
                              const ExecuteOptions& options) {
  Editor editor(model, edits);
  editor.plan();
  return editor.write(output, options);
}

}  // namespace mezzotint::convert
