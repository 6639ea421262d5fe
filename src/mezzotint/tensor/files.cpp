#include "mezzotint/tensor/files.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "mezzotint/tensor/quantized_tensor.h"
#include "mezzotint/tensor/rewrite_item.h"

namespace mezzotint::tensor {

at::Tensor read_tensor(const io::Source& file, size_t index, bool map) {
  const io::TensorInfo& info = file.tensors()[index];
  return read_tensor(file, index, info.dtype, info.shape, map);
}

at::Tensor read_tensor(const io::Source& file, size_t index, DType dtype, const Shape& shape, bool map) {
  const at::ScalarType type = scalar_type(dtype);
  const uint64_t bytes = file.tensors()[index].bytes;
  if (map && bytes > 0) {
    std::shared_ptr<std::byte> mapped = file.map(index);
    std::byte* first = mapped.get();
    if (reinterpret_cast<std::uintptr_t>(first) % c10::elementSize(type) == 0)
      return at::from_blob(
          first, shape, [mapped = std::move(mapped)](void*) {}, at::TensorOptions(type));
  }
  at::Tensor values = at::empty(shape, type);
  TORCH_INTERNAL_ASSERT(values.nbytes() == bytes);
  file.read(index, 0, values.mutable_data_ptr(), bytes);
  return values;
}

std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path) {
  const auto file = io::Source::open(path);
  std::map<std::string, at::Tensor> tensors;
  for (size_t i = 0; i < file.tensors().size(); ++i) tensors.emplace(file.tensors()[i].name, read_tensor(file, i));
  return tensors;
}

convert::RewriteItem rewrite_item(std::string name, const at::Tensor& tensor, std::optional<io::TensorSpec> as) {
  convert::RewriteItem item;
  item.spec = as.value_or(io::TensorSpec{"", dtype_of(tensor.scalar_type()), shape_of(tensor)});
  item.spec.name = std::move(name);
  item.make = [tensor = tensor.detach()] {
    const at::Tensor bytes = tensor.to(at::kCPU).contiguous();
    const auto* first = static_cast<const std::byte*>(bytes.const_data_ptr());
    return std::vector<std::byte>(first, first + bytes.nbytes());
  };
  return item;
}

void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                   bool overwrite) {
  std::vector<convert::RewriteItem> items;
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK(!is_quantized(tensor), name, " is quantized: nn::save writes it with its marker");
    items.push_back(rewrite_item(name, tensor));
  }
  convert::rewrite(path, items, {}, {.overwrite = overwrite}, {});
}

}  // namespace mezzotint::tensor
