#include "mezzotint/nn/file_tensors.h"

#include <ATen/ops/empty.h>

#include <cstring>

#include "mezzotint/tensor/files.h"

namespace mezzotint::nn {

using checkpoint::Model;

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
      weight.tensors.push_back(tensor::read_tensor(file.source(), layer.parts[i], wanted.dtype, wanted.shape, map));
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
  return layer.smoothed ? tensor::read_tensor(file.source(), *layer.pre_quant_scale).to(at::kFloat).flatten()
                        : at::Tensor();
}

std::optional<float> read_input_scale(const Model& file, const checkpoint::Layer& layer) {
  if (!layer.input_scale) return std::nullopt;
  return tensor::read_tensor(file.source(), *layer.input_scale).to(at::kFloat).item<float>();
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor left = a.detach().to(at::kCPU).contiguous(), right = b.detach().to(at::kCPU).contiguous();
  return left.nbytes() == 0 || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

}  // namespace mezzotint::nn
