#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/edit.h"
#include "mezzotint/convert/rewrite.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;
using nlohmann::ordered_json;

class Repairer {
 public:
  explicit Repairer(const Model& model) : model_(model), tensors_(model.source().tensors()) {}

  void plan() {
    refuse_what_cannot_be_mended();
    for (size_t i = 0; i < tensors_.size(); ++i) place(i);
    write_header();
  }

  std::vector<std::string> write(const std::filesystem::path& output, const ExecuteOptions& options) {
    if (!lines_.empty()) rewrite(output, items_, {.metadata = metadata_}, options, {&model_.source()});
    return std::move(lines_);
  }

 private:
  void refuse_what_cannot_be_mended() const {
    for (const auto& finding : checkpoint::verify(model_, {.codes = false}))
      if (finding.severity == checkpoint::Severity::error && !finding.repairable)
        throw Error({.name = "not-repairable",
                     .problem = finding.message,
                     .file = model_.source().files().at(0).string(),
                     .tensor = finding.subject,
                     .advice = "Nothing was written; the layer has to come from another copy of the file."});
  }

  void place(size_t i) {
    switch (model_.role(i)) {
      case Role::plain:
        items_.push_back(RewriteItem::copy(model_.source(), i, tensors_[i].name));
        return;
      case Role::orphan:
        lines_.push_back(fmt::format("left out {}, which belongs to no quantized weight", tensors_[i].name));
        return;
      case Role::file_marker:
        lines_.push_back(fmt::format("replaced the legacy marker {} by one marker per layer", tensors_[i].name));
        return;
      case Role::codes:
        place_layer(model_.layers()[model_.layer_of(i)]);
        return;
      case Role::parameter:
      case Role::activation:
      case Role::marker:
        return;  // written beside their weight
    }
  }

  void place_layer(const Layer& layer) {
    place_codes(layer);
    for (size_t k = 1; k < layer.parts.size(); ++k) place_parameter(layer, k);
    place_marker(layer);
    if (layer.input_scale) place_input_scale(layer, *layer.input_scale);
    if (layer.pre_quant_scale)
      items_.push_back(
          RewriteItem::copy(model_.source(), *layer.pre_quant_scale, tensors_[*layer.pre_quant_scale].name));
  }

  // Only the label on the bytes may change.
  void place_codes(const Layer& layer) {
    const auto& stored = layer.layout.tensors[0];
    const auto& info = tensors_[layer.parts[0]];
    RewriteItem item = RewriteItem::copy(model_.source(), layer.parts[0], info.name);
    if (info.dtype != stored.dtype || info.shape != stored.shape) {
      if (byte_count(stored.dtype, stored.shape) != info.bytes)
        throw Error({.name = "not-repairable",
                     .problem = "the codes do not fill the layer",
                     .file = model_.source().files()[info.file].string(),
                     .tensor = info.name,
                     .expected = fmt::format("{} {}", name(stored.dtype), to_string(stored.shape)),
                     .found = fmt::format("{} {}", name(info.dtype), to_string(info.shape))});
      lines_.push_back(fmt::format("{}: {} {} is called {} {}", info.name, name(info.dtype), to_string(info.shape),
                                   name(stored.dtype), to_string(stored.shape)));
      item.spec.dtype = stored.dtype;
      item.spec.shape = stored.shape;
    }
    items_.push_back(std::move(item));
  }

  void place_parameter(const Layer& layer, size_t k) {
    const auto& stored = layer.layout.tensors[k];
    const auto& info = tensors_[layer.parts[k]];
    const std::string target = layer.name + "." + stored.suffix;
    if (info.name != target) lines_.push_back(fmt::format("renamed {} to {}", info.name, target));
    if (info.dtype == stored.dtype && info.shape == stored.shape) {
      items_.push_back(RewriteItem::copy(model_.source(), layer.parts[k], target));
      return;
    }
    lines_.push_back(fmt::format("{}: {} {} becomes {} {}", target, name(info.dtype), to_string(info.shape),
                                 name(stored.dtype), to_string(stored.shape)));
    RewriteItem item;
    item.spec = {target, stored.dtype, stored.shape};
    item.make = [this, &layer, k] {
      const formats::Parameters parameters = model_.parameters(layer);
      return std::vector<std::byte>(parameters.tensors[k].begin(), parameters.tensors[k].end());
    };
    items_.push_back(std::move(item));
  }

  void place_marker(const Layer& layer) {
    const std::string target = layer.name + "." + std::string(checkpoint::kMarkerSuffix);
    const std::string text = marker_of(layer);
    headers_.emplace_back(layer.name, text);
    if (!layer.marker_tensor) {
      lines_.push_back(fmt::format("wrote {}: {}", target, text));
      items_.push_back(RewriteItem::text(target, text));
      return;
    }
    const auto raw = model_.source().read_all(*layer.marker_tensor);
    const auto* begin = reinterpret_cast<const char*>(raw.data());
    const bool same = ordered_json::parse(begin, begin + raw.size(), nullptr, false) == ordered_json::parse(text) &&
                      tensors_[*layer.marker_tensor].dtype == DType::u8;
    if (same) {
      items_.push_back(RewriteItem::copy(model_.source(), *layer.marker_tensor, target));
      return;
    }
    lines_.push_back(fmt::format("corrected {}: {}", target, text));
    items_.push_back(RewriteItem::text(target, text));
  }

  // The layout's own marker, and whatever else a marker of the same format said (orig_shape, ...).
  static std::string marker_of(const Layer& layer) {
    const std::string canonical = checkpoint::marker_text(layer.layout, layer.full_precision_matrix_mult);
    if (layer.marker.empty()) return canonical;
    ordered_json object = ordered_json::parse(canonical);
    const ordered_json old = ordered_json::parse(layer.marker);
    if (old.at("format") != object.at("format")) return canonical;
    for (const auto& [key, value] : old.items())
      if (!object.contains(key)) object[key] = value;
    return checkpoint::json_text(object);
  }

  void place_input_scale(const Layer& layer, size_t tensor) {
    const auto& info = tensors_[tensor];
    const std::string target = layer.name + "." + std::string(checkpoint::kInputScale);
    if (info.name != target) lines_.push_back(fmt::format("renamed {} to {}", info.name, target));
    RewriteItem item = RewriteItem::copy(model_.source(), tensor, target);
    if (info.dtype != DType::f32) {
      lines_.push_back(fmt::format("{}: {} becomes F32", target, name(info.dtype)));
      item = {};
      item.spec = {target, DType::f32, info.shape};
      item.make = [this, tensor] {
        const checkpoint::WeightValues values(model_, tensor);
        std::vector<float> floats(values.elements());
        std::vector<std::byte> scratch;
        values.read(0, floats.size(), floats.data(), scratch);
        std::vector<std::byte> bytes(floats.size() * sizeof(float));
        std::memcpy(bytes.data(), floats.data(), bytes.size());
        return bytes;
      };
    }
    items_.push_back(std::move(item));
  }

  void write_header() {
    std::string before;
    for (const auto& [key, value] : model_.source().metadata()) {
      if (key == checkpoint::kHeaderKey)
        before = value;
      else
        metadata_.emplace_back(key, value);
    }
    if (headers_.empty()) {
      if (!before.empty()) lines_.push_back("left out the header's _quantization_metadata: no layer is quantized");
      return;
    }
    const std::string text = checkpoint::header_text(headers_);
    const bool same = nlohmann::json::parse(before, nullptr, false) == nlohmann::json::parse(text);
    if (!same)
      lines_.push_back(fmt::format("wrote the header's _quantization_metadata for {} layers", headers_.size()));
    metadata_.emplace_back(checkpoint::kHeaderKey, same ? before : text);
  }

  const Model& model_;
  const std::vector<io::TensorInfo>& tensors_;
  std::vector<RewriteItem> items_;
  std::vector<std::pair<std::string, std::string>> headers_;
  io::Metadata metadata_;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> repair(const Model& model, const std::filesystem::path& output,
                                const ExecuteOptions& options) {
  Repairer repairer(model);
  repairer.plan();
  return repairer.write(output, options);
}

}  // namespace mezzotint::convert
