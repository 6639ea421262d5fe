#include "mezzotint/tensor/quantized_tensor.h"

#include <ATen/ops/transpose.h>
#include <fmt/format.h>

#include "mezzotint/tensor/dispatch.h"

namespace mezzotint::tensor {
namespace {

// Core PyTorch leaves this key unused. It lies above autograd (c10/core/DispatchKey.h).
constexpr auto kKey = c10::DispatchKey::DeferredInit;

c10::DispatchKeySet keys_for(at::Device device) {
  const auto backend = device.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  return c10::DispatchKeySet(kKey) | c10::DispatchKeySet(backend) |
         c10::getAutogradRelatedKeySetFromBackend(device.is_cuda() ? c10::BackendComponent::CUDABit
                                                                   : c10::BackendComponent::CPUBit);
}

}  // namespace

QuantizedTensorImpl::QuantizedTensorImpl(std::shared_ptr<Cell> cell, at::ScalarType logical, bool transposed,
                                         std::shared_ptr<const ProductOptions> product)
    : TensorImpl(keys_for(cell->stored->device()), c10::scalarTypeToTypeMeta(logical), cell->stored->device()),
      cell_(std::move(cell)),
      product_(product ? std::move(product) : std::make_shared<const ProductOptions>()),
      transposed_(transposed) {
  install_dispatch();
  set_shape();
}

void QuantizedTensorImpl::set_shape() {
  std::vector<int64_t> sizes = stored()->shape(), strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  if (transposed_) {
    std::swap(sizes[sizes.size() - 2], sizes[sizes.size() - 1]);
    std::swap(strides[sizes.size() - 2], strides[sizes.size() - 1]);
  }
  set_sizes_and_strides(sizes, strides);
}

void QuantizedTensorImpl::replace(std::shared_ptr<const StoredWeight> stored) {
  TORCH_CHECK(stored->shape() == cell_->stored->shape(), "another shape cannot take a weight's place");
  cell_->stored = std::move(stored);
  if (!is_inference()) bump_version();
}

c10::intrusive_ptr<c10::TensorImpl> QuantizedTensorImpl::shallow_copy_and_detach(const c10::VariableVersion& version,
                                                                                 bool allow_metadata_change) const {
  auto copy =
      c10::make_intrusive<QuantizedTensorImpl>(cell_, c10::typeMetaToScalarType(dtype()), transposed_, product_);
  if (!copy->is_inference()) copy->set_version_counter(version);
  copy->set_allow_tensor_metadata_change(allow_metadata_change);
  return copy;
}

c10::intrusive_ptr<c10::TensorImpl> QuantizedTensorImpl::shallow_copy_and_detach(c10::VariableVersion&& version,
                                                                                 bool allow_metadata_change) const {
  return shallow_copy_and_detach(static_cast<const c10::VariableVersion&>(version), allow_metadata_change);
}

void QuantizedTensorImpl::shallow_copy_from(const c10::intrusive_ptr<c10::TensorImpl>& other) {
  const auto* source = dynamic_cast<const QuantizedTensorImpl*>(other.get());
  TORCH_CHECK(source != nullptr, "a quantized tensor cannot take the place of its data from one that is not");
  cell_ = source->cell_;
  product_ = source->product_;
  transposed_ = source->transposed_;
  data_type_ = source->dtype();
  device_opt_ = source->device();
  set_shape();
}

bool is_quantized(const at::Tensor& tensor) {
  return tensor.defined() && tensor.unsafeGetTensorImpl()->key_set().has(kKey) &&
         dynamic_cast<const QuantizedTensorImpl*>(tensor.unsafeGetTensorImpl()) != nullptr;
}

const QuantizedTensorImpl& quantized(const at::Tensor& tensor) {
  TORCH_CHECK(is_quantized(tensor), "a quantized tensor is wanted here");
  return *static_cast<const QuantizedTensorImpl*>(tensor.unsafeGetTensorImpl());
}

at::Tensor make_tensor(std::shared_ptr<const StoredWeight> stored, at::ScalarType logical, bool transposed,
                       std::shared_ptr<const ProductOptions> product) {
  auto cell = std::make_shared<QuantizedTensorImpl::Cell>(QuantizedTensorImpl::Cell{std::move(stored)});
  return at::Tensor(c10::make_intrusive<QuantizedTensorImpl>(std::move(cell), logical, transposed, std::move(product)));
}

at::Tensor make_alias(const at::Tensor& tensor, bool transposed) {
  const QuantizedTensorImpl& weight = quantized(tensor);
  auto alias =
      c10::make_intrusive<QuantizedTensorImpl>(weight.cell(), tensor.scalar_type(), transposed, weight.product());
  if (!alias->is_inference() && !tensor.is_inference()) alias->set_version_counter(weight.version_counter());
  return at::Tensor(std::move(alias));
}

at::Tensor from_float(const at::Tensor& weight, std::string_view format, const QuantizeOptions& options) {
  return make_tensor(std::make_shared<const StoredWeight>(quantize(weight, format, options)), weight.scalar_type());
}

at::Tensor requantize_like(const at::Tensor& weight, const at::Tensor& like, const QuantizeOptions& options) {
  const QuantizedTensorImpl& target = quantized(like);
  const at::Tensor rows = target.transposed() ? weight.transpose(-2, -1) : weight;
  auto stored = std::make_shared<const StoredWeight>(quantize(rows, target.stored()->layout, options));
  return make_tensor(std::move(stored), like.scalar_type(), target.transposed(), target.product());
}

at::Tensor dequantized(const at::Tensor& tensor, std::optional<at::ScalarType> type) {
  if (!is_quantized(tensor)) return tensor;
  const QuantizedTensorImpl& weight = quantized(tensor);
  const at::Tensor values = dequantize(*weight.stored(), type.value_or(tensor.scalar_type()));
  return weight.transposed() ? values.transpose(-2, -1) : values;
}

std::string format_label(const at::Tensor& tensor) {
  const formats::Layout& layout = quantized(tensor).stored()->layout;
  return formats::Selection{layout.format, layout.options}.label();
}

std::string describe(const at::Tensor& tensor) {
  const QuantizedTensorImpl& weight = quantized(tensor);
  return fmt::format("{} {}{} as {} on {}, {:.1f} MB", format_label(tensor), to_string(shape_of(tensor)),
                     weight.transposed() ? " (transposed)" : "", c10::toString(tensor.scalar_type()),
                     tensor.device().str(), static_cast<double>(weight.stored()->bytes()) * 1e-6);
}

}  // namespace mezzotint::tensor
