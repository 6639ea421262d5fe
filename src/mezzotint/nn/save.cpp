#include "mezzotint/nn/save.h"

#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/convert/rewrite.h"
#include "mezzotint/nn/file_tensors.h"
#include "mezzotint/nn/prefix.h"
#include "mezzotint/tensor/files.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "mezzotint/tensor/rewrite_item.h"

namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using checkpoint::Role;
using convert::RewriteItem;

using checkpoint::kDotWeight;

/// The marker of a layer of the file, where it is one of today's and says what the layer is; else the canonical one.
std::string marker_of(const checkpoint::Layer& layer, bool full_precision) {
  if (layer.dialect == checkpoint::Dialect::comfy_quant || layer.dialect == checkpoint::Dialect::header) {
    const auto object = nlohmann::ordered_json::parse(layer.marker);
    if (object.value("format", "") == layer.layout.format->name && layer.full_precision_matrix_mult == full_precision) {
      nlohmann::ordered_json sorted;
      sorted["format"] = object["format"];
      for (const auto& [key, value] : object.items())
        if (key != "format") sorted[key] = value;
      return checkpoint::json_text(sorted);
    }
  }
  return checkpoint::marker_text(layer.layout, full_precision);
}

class Saver {
 public:
  Saver(const torch::nn::Module& module, const SaveOptions& options) : options_(options), file_(options.source) {
    for (const auto& parameter : module.named_parameters()) names_.insert(parameter.key());
    if (options.prefix)
      prefix_ = *options.prefix;
    else if (file_ != nullptr)
      prefix_ = find_prefix(file_->source().tensors(), names_);
    for (const auto& parameter : module.named_parameters()) add(parameter.key(), parameter.value(), true);
    for (const auto& buffer : module.named_buffers()) add(buffer.key(), buffer.value(), false);
    if (file_ != nullptr) compare();
  }

  SaveReport write(const std::filesystem::path& path) {
    if (file_ != nullptr)
      for (size_t i = 0; i < file_->source().tensors().size(); ++i) from_file(i);
    for (const auto& [name, value] : values_)
      if (!done_.contains(name)) from_module(name, value);
    std::vector<const io::Source*> inputs;
    if (file_ != nullptr) inputs.push_back(&file_->source());
    convert::rewrite(path, items_, {.metadata = metadata(), .max_shard_bytes = options_.max_shard_bytes},
                     {.overwrite = options_.overwrite}, inputs);
    for (const RewriteItem& item : items_) report_.bytes += byte_count(item.spec.dtype, item.spec.shape).value_or(0);
    return std::move(report_);
  }

 private:
  void add(const std::string& key, const at::Tensor& value, bool required) {
    if (!value.defined()) return;
    const std::string name = prefix_ + key;
    const bool known = file_ != nullptr && file_->source().find(name) != io::Source::npos;
    if (value.is_meta()) {
      if (known || !required) return;  // not loaded: the file's own is the one
      throw Error({.name = "not-loaded", .problem = "a parameter without values cannot be saved", .tensor = name});
    }
    if (!required && file_ != nullptr && !known) return;
    if (tensor::is_quantized(value)) {
      if (!name.ends_with(kDotWeight) || name.size() == kDotWeight.size())
        throw Error({.name = "bad-name",
                     .problem = "loaders find no marker of a quantized tensor of this name",
                     .tensor = name,
                     .expected = "a name that ends in .weight"});
      TORCH_CHECK(!tensor::quantized(value).transposed(), name, " is transposed and cannot be saved");
    }
    values_.emplace_back(name, value);
    by_name_[name] = value;
  }

  /// Which of the file's tensors and layers the module has unchanged.
  void compare() {
    const auto& tensors = file_->source().tensors();
    same_.assign(tensors.size(), false);
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto value = by_name_.find(tensors[i].name);
      if (value == by_name_.end()) continue;
      const bool codes = file_->role(i) == Role::codes, quantized = tensor::is_quantized(value->second);
      if (codes && quantized)
        same_[i] = same_layer(file_->layers()[file_->layer_of(i)], value->second);
      else if (!codes && !quantized)
        same_[i] = same_bytes(tensor::read_tensor(file_->source(), i).to(value->second.scalar_type()), value->second);
      if (!same_[i] && (codes || quantized)) as_stored_ = false;
    }
    for (const auto& [name, value] : values_)
      if (tensor::is_quantized(value) && file_->source().find(name) == io::Source::npos) as_stored_ = false;
  }

  bool same_layer(const checkpoint::Layer& layer, const at::Tensor& value) const {
    const auto& stored = *tensor::quantized(value).stored();
    const auto& product = *tensor::quantized(value).product();
    if (!layer.consistent || stored.layout.format != layer.layout.format ||
        stored.layout.options != layer.layout.options || stored.layout.shape != layer.layout.shape ||
        product.full_precision_matrix_mult != layer.full_precision_matrix_mult ||
        product.input_scale != read_input_scale(*file_, layer) || !same_factors(layer, product.pre_quant_scale))
      return false;
    const auto original = read_layer(*file_, layer);
    return std::equal(original.tensors.begin(), original.tensors.end(), stored.tensors.begin(), stored.tensors.end(),
                      same_bytes);
  }

  bool same_factors(const checkpoint::Layer& layer, const at::Tensor& factors) const {
    if (layer.smoothed != factors.defined()) return false;
    return !layer.smoothed || same_bytes(read_pre_quant_scale(*file_, layer), factors);
  }

  void from_file(size_t index) {
    const io::TensorInfo& info = file_->source().tensors()[index];
    const size_t owner = file_->layer_of(index);
    const bool ours = by_name_.contains(info.name);
    if (owner != Model::npos) {
      const checkpoint::Layer& layer = file_->layers()[owner];
      const auto weight = by_name_.find(layer.name + std::string(kDotWeight));
      if (weight == by_name_.end() && !options_.rest && !is_unloaded(layer.name + std::string(kDotWeight)))
        return report_.left_out.push_back(info.name);
      if (as_stored_ || !layer.consistent) return copy(index);
      if (file_->role(index) != Role::codes) return;  // come with the codes
      done_.insert(info.name);
      if (weight == by_name_.end())
        convert_layer(layer);
      else if (!tensor::is_quantized(weight->second))
        from_module(weight->first, weight->second);
      else
        from_layer(layer, index, weight->second);
      return;
    }
    if (ours && !same_[index]) return from_module(info.name, by_name_.at(info.name));
    if (file_->role(index) == Role::file_marker && !as_stored_) return;
    if (file_->role(index) == Role::orphan && !as_stored_) return report_.left_out.push_back(info.name);
    if (!ours && !options_.rest && !is_unloaded(info.name) && !(as_stored_ && is_marker_of_ours(index)))
      return report_.left_out.push_back(info.name);
    copy(index);
  }

  /// A parameter that the module has and that was not loaded.
  bool is_unloaded(const std::string& name) const {
    return name.starts_with(prefix_) && names_.contains(name.substr(prefix_.size())) && !by_name_.contains(name);
  }

  bool is_marker_of_ours(size_t index) const {
    if (file_->role(index) != Role::file_marker) return false;
    const std::string& name = file_->source().tensors()[index].name;
    return prefix_.starts_with(name.substr(0, name.size() - checkpoint::kFileMarker.size()));
  }

  void copy(size_t index) {
    const std::string& name = file_->source().tensors()[index].name;
    done_.insert(name);
    items_.push_back(RewriteItem::copy(file_->source(), index, name));
  }

  void from_layer(const checkpoint::Layer& layer, size_t index, const at::Tensor& weight) {
    const tensor::QuantizedTensorImpl& value = tensor::quantized(weight);
    const formats::Layout& layout = value.stored()->layout;
    const bool same_format = layout.format == layer.layout.format && layout.options == layer.layout.options;
    if (!same_[index]) report_.changed.push_back(layer.name);
    write_layer(layer.name, value, same_format ? marker_of(layer, value.product()->full_precision_matrix_mult) : "");
  }

  void from_module(const std::string& name, const at::Tensor& value) {
    done_.insert(name);
    if (!tensor::is_quantized(value)) {
      report_.changed.push_back(name);
      items_.push_back(tensor::rewrite_item(name, value));
      return;
    }
    const std::string layer = name.substr(0, name.size() - kDotWeight.size());
    report_.changed.push_back(layer);
    write_layer(layer, tensor::quantized(value), "");
  }

  /// A layer in today's dialect; an empty marker is made.
  void write_layer(const std::string& layer, const tensor::QuantizedTensorImpl& value, std::string marker) {
    const tensor::StoredWeight& weight = *value.stored();
    const tensor::ProductOptions& product = *value.product();
    if (marker.empty()) marker = checkpoint::marker_text(weight.layout, product.full_precision_matrix_mult);
    for (size_t i = 0; i < weight.tensors.size(); ++i) {
      const formats::StoredTensor& spec = weight.layout.tensors[i];
      const std::string suffix = i == 0 ? "weight" : spec.suffix;
      items_.push_back(
          tensor::rewrite_item(layer + "." + suffix, weight.tensors[i], io::TensorSpec{"", spec.dtype, spec.shape}));
    }
    items_.push_back(RewriteItem::text(layer + "." + std::string(checkpoint::kMarkerSuffix), marker));
    markers_.emplace_back(layer, std::move(marker));
    if (product.input_scale)
      items_.push_back(tensor::rewrite_item(layer + "." + std::string(checkpoint::kInputScale),
                                            at::scalar_tensor(*product.input_scale, at::TensorOptions(at::kFloat))));
    if (product.pre_quant_scale.defined())
      items_.push_back(
          tensor::rewrite_item(layer + "." + std::string(checkpoint::kPreQuantScale), product.pre_quant_scale));
  }

  /// A layer that the module does not have, in today's dialect; read when its turn comes.
  void convert_layer(const checkpoint::Layer& layer) {
    const std::string prefix = layer.name + ".";
    for (size_t i = 0; i < layer.parts.size(); ++i) {
      const formats::StoredTensor& spec = layer.layout.tensors[i];
      RewriteItem item = RewriteItem::copy(file_->source(), layer.parts[i], prefix + (i == 0 ? "weight" : spec.suffix));
      item.spec.dtype = spec.dtype;
      item.spec.shape = spec.shape;
      if (i > 0) {  // dtypes and shapes of older dialects
        item.source = nullptr;
        item.make = [this, &layer, i] {
          const auto parameters = file_->parameters(layer);
          return std::vector<std::byte>(parameters.tensors[i].begin(), parameters.tensors[i].end());
        };
      }
      items_.push_back(std::move(item));
    }
    std::string marker = marker_of(layer, layer.full_precision_matrix_mult);
    items_.push_back(RewriteItem::text(prefix + std::string(checkpoint::kMarkerSuffix), marker));
    markers_.emplace_back(layer.name, std::move(marker));
    if (layer.input_scale)
      items_.push_back(
          RewriteItem::copy(file_->source(), *layer.input_scale, prefix + std::string(checkpoint::kInputScale)));
    if (layer.pre_quant_scale)
      items_.push_back(
          RewriteItem::copy(file_->source(), *layer.pre_quant_scale, prefix + std::string(checkpoint::kPreQuantScale)));
  }

  io::Metadata metadata() const {
    io::Metadata metadata;
    const auto set = [&](const std::string& key, const std::string& value) {
      std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
      metadata.emplace_back(key, value);
    };
    if (file_ != nullptr)
      for (const auto& [key, value] : file_->source().metadata())
        if (as_stored_ ? (options_.rest || key != checkpoint::kHeaderKey)
                       : (key != checkpoint::kHeaderKey && !convert::is_origin_key(key)))
          set(key, value);
    const auto markers = header_markers();
    if (!markers.empty()) set(std::string(checkpoint::kHeaderKey), checkpoint::header_text(markers));
    for (const auto& [key, value] : options_.metadata) set(key, value);
    return metadata;
  }

  /// Layers of the header's metadata, where the source's entry is not simply kept.
  std::vector<std::pair<std::string, std::string>> header_markers() const {
    if (file_ == nullptr) return markers_;
    auto markers = markers_;
    if (as_stored_ && (options_.rest || !file_->has_header_metadata())) return {};
    if (as_stored_)
      for (const checkpoint::Layer& layer : file_->layers())
        if (done_.contains(layer.name + std::string(kDotWeight)) && !layer.marker.empty())
          markers.emplace_back(layer.name, marker_of(layer, layer.full_precision_matrix_mult));
    for (const auto& [layer, marker] : file_->foreign_layers())
      if (done_.contains(layer + std::string(kDotWeight))) markers.emplace_back(layer, marker);
    return markers;
  }

  const SaveOptions& options_;
  const Model* file_;
  std::string prefix_;
  std::set<std::string, std::less<>> names_;                // of the parameters, without prefix
  std::vector<std::pair<std::string, at::Tensor>> values_;  // in the module's order, with prefix
  std::map<std::string, at::Tensor, std::less<>> by_name_;
  std::vector<bool> same_;  // by tensor of the file
  bool as_stored_ = true;   // no quantized layer changed
  std::set<std::string, std::less<>> done_;
  std::vector<std::pair<std::string, std::string>> markers_;
  std::vector<RewriteItem> items_;
  SaveReport report_;
};

}  // namespace

SaveReport save(const torch::nn::Module& module, const std::filesystem::path& path, const SaveOptions& options) {
  return Saver(module, options).write(path);
}

}  // namespace mezzotint::nn
