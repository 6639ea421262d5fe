#include "mezzotint/nn/file_tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <cstring>

namespace mezzotint::nn {
namespace {

using checkpoint::Model;

/// The bytes of a file's tensor under another dtype and shape of that size.
at::Tensor read_as(const Model& file, size_t index, DType dtype, const Shape& shape, bool map) {
  const at::ScalarType type = tensor::scalar_type(dtype);
  const uint64_t bytes = file.source().tensors()[index].bytes;
  if (map && bytes > 0) {
    std::shared_ptr<std::byte> mapped = file.source().map(index);
    std::byte* first = mapped.get();
    if (reinterpret_cast<std::uintptr_t>(first) % c10::elementSize(type) == 0)
      return at::from_blob(
          first, shape, [mapped = std::move(mapped)](void*) {}, at::TensorOptions(type));
  }
  at::Tensor values = at::empty(shape, type);
  TORCH_INTERNAL_ASSERT(values.nbytes() == bytes);
  file.source().read(index, 0, values.mutable_data_ptr(), bytes);
  return values;
}

}  // namespace

at::Tensor read_tensor(const Model& file, size_t index, bool map) {
  const io::TensorInfo& info = file.source().tensors()[index];
  return read_as(file, index, info.dtype, info.shape, map);
}

tensor::StoredWeight read_layer(const Model& file, const checkpoint::Layer& layer, bool map) {
  const formats::Layout& layout = layer.layout;
  tensor::StoredWeight weight{.layout = layout};
  formats::Parameters parameters;  // those that the file stores in another form
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const formats::StoredTensor& wanted = layout.tensors[i];
    const io::TensorInfo& info = file.source().tensors()[layer.parts[i]];
    const bool same =
        info.bytes == byte_count(wanted.dtype, wanted.shape) &&
        (i == 0 || (info.dtype == wanted.dtype && element_count(info.shape) == element_count(wanted.shape)));
    if (same) {
      weight.tensors.push_back(read_as(file, layer.parts[i], wanted.dtype, wanted.shape, map));
      continue;
    }
    weight.tensors.push_back(at::empty(wanted.shape, tensor::scalar_type(wanted.dtype)));
    auto* bytes = static_cast<std::byte*>(weight.tensors[i].mutable_data_ptr());
    if (i == 0) {
      for (int64_t expert = 0; expert < layout.experts; ++expert)
        file.read_codes(layer, expert * layout.rows, layout.rows,
                        bytes + expert * layout.stored_rows * layout.row_bytes);
      continue;
    }
    if (parameters.tensors.empty()) parameters = file.parameters(layer);
    std::memcpy(bytes, parameters.tensors[i].data(), parameters.tensors[i].size());
  }
  return weight;
}

at::Tensor read_pre_quant_scale(const Model& file, const checkpoint::Layer& layer) {
  return layer.smoothed ? read_tensor(file, *layer.pre_quant_scale).to(at::kFloat).flatten() : at::Tensor();
}

std::optional<float> read_input_scale(const Model& file, const checkpoint::Layer& layer) {
  if (!layer.input_scale) return std::nullopt;
  return read_tensor(file, *layer.input_scale).to(at::kFloat).item<float>();
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor left = a.detach().to(at::kCPU).contiguous(), right = b.detach().to(at::kCPU).contiguous();
  return left.nbytes() == 0 || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

}  // namespace mezzotint::nn
