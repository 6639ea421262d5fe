#include "mezzotint/formats/common/stored_floats.h"

#include <algorithm>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::formats {

std::vector<float> widened(const Layout& layout, const Parameters& parameters, size_t tensor) {
  const auto count = static_cast<int64_t>(element_count(layout.tensors[tensor].shape).value());
  std::vector<float> values(static_cast<size_t>(count));
  kernel::cast({parameters.tensors[tensor].data(), layout.tensors[tensor].dtype, 1, count, count}, DType::f32,
               values.data(), count);
  return values;
}

std::string keep_floats(const StoredLayer& layer, std::string_view suffix, const std::vector<Shape>& shapes,
                        Layout& layout) {
  const TensorFacts* tensor = layer.find(suffix);
  if (tensor == nullptr) return std::string(suffix) + " is missing; the codes mean nothing without it.";
  const bool is_float = tensor->dtype == DType::f32 || tensor->dtype == DType::bf16 || tensor->dtype == DType::f16;
  if (is_float && std::find(shapes.begin(), shapes.end(), tensor->shape) != shapes.end()) {
    layout.tensors.push_back({std::string(suffix), tensor->dtype, tensor->shape});
    return "";
  }
  std::string wanted;
  for (const Shape& shape : shapes) wanted += (wanted.empty() ? "" : " or ") + to_string(shape);
  return tell(*tensor) + ", not BF16, F16 or F32 " + wanted + ".";
}

}  // namespace mezzotint::formats
