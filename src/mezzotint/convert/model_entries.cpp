#include "mezzotint/convert/model_entries.h"

#include <algorithm>
#include <cstring>

#include "mezzotint/checkpoint/suffixes.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;
using checkpoint::WeightValues;

constexpr uint64_t kChunkBytes = 4 << 20;

bool same_bytes(const Model& in_a, size_t a, const Model& in_b, size_t b) {
  const io::TensorInfo& left_info = in_a.source().tensors()[a];
  const io::TensorInfo& right_info = in_b.source().tensors()[b];
  const uint64_t bytes = left_info.bytes;
  if (left_info.dtype != right_info.dtype || bytes != right_info.bytes) return false;
  std::vector<std::byte> left(std::min(bytes, kChunkBytes)), right(left.size());
  for (uint64_t at = 0; at < bytes; at += kChunkBytes) {
    const size_t size = std::min(bytes - at, kChunkBytes);
    in_a.source().read(a, at, left.data(), size);
    in_b.source().read(b, at, right.data(), size);
    if (std::memcmp(left.data(), right.data(), size) != 0) return false;
  }
  return true;
}

}  // namespace

const Shape& ModelEntry::shape(const Model& model) const {
  return layer != nullptr ? layer->layout.shape : info(model).shape;
}

std::string ModelEntry::label(const Model& model) const {
  if (layer == nullptr) return std::string(name(info(model).dtype));
  return formats::Selection{layer->layout.format, layer->layout.options}.label();
}

std::optional<WeightValues> ModelEntry::values(const Model& model) const {
  if (layer != nullptr) return WeightValues(model, *layer);
  if (!checkpoint::is_readable(info(model).dtype)) return std::nullopt;
  return WeightValues(model, tensor);
}

ModelEntries entries_of(const Model& model) {
  ModelEntries entries;
  const auto& tensors = model.source().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    ModelEntry entry{i, nullptr};
    std::string key = tensors[i].name;
    switch (model.role(i)) {
      case Role::codes: {
        const Layer& layer = model.layers()[model.layer_of(i)];
        if (layer.consistent) entry.layer = &layer;
        break;
      }
      case Role::parameter:
      case Role::marker:
      case Role::file_marker:
        continue;
      case Role::activation: {
        const Layer& owner = model.layers()[model.layer_of(i)];
        if (owner.consistent && owner.smoothed && i == *owner.pre_quant_scale) continue;  // a factor of the weight
        // "scale_input" and "input_scale" are the same thing.
        const auto [layer, suffix] = checkpoint::split_name(tensors[i].name);
        key = std::string(layer) + "." + std::string(checkpoint::canonical_suffix(suffix));
        break;
      }
      case Role::plain:
      case Role::orphan:
        break;
    }
    entries.emplace(std::move(key), entry);
  }
  return entries;
}

uint64_t identical_tensors(const Model& in_a, const ModelEntry& a, const Model& in_b, const ModelEntry& b) {
  if ((a.layer == nullptr) != (b.layer == nullptr)) return 0;
  if (a.layer == nullptr) return same_bytes(in_a, a.tensor, in_b, b.tensor) ? 1 : 0;
  const auto& left = *a.layer;
  const auto& right = *b.layer;
  if (left.layout.format != right.layout.format || !(left.layout.options == right.layout.options) ||
      left.parts.size() != right.parts.size() || left.smoothed != right.smoothed)
    return 0;
  if (left.smoothed && !same_bytes(in_a, *left.pre_quant_scale, in_b, *right.pre_quant_scale)) return 0;
  // Parameters first: they are small and differ wherever codes do.
  for (size_t i = left.parts.size(); i-- > 0;)
    if (!same_bytes(in_a, left.parts[i], in_b, right.parts[i])) return 0;
  return left.parts.size() + (left.smoothed ? 1 : 0);
}

}  // namespace mezzotint::convert
