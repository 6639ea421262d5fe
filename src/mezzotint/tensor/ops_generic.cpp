#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include <vector>

#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/quantized_tensor.h"

// Operations that keep the stored bytes, or move them, whatever the layout. A kernel that finds its first argument not
// quantized leaves the call to the fallback.
namespace mezzotint::tensor {
namespace {

using c10::OperatorHandle;
using torch::jit::Stack;

const std::string kNotFirst = "its first argument is not quantized";

/// The value of an argument by its name, which must exist in the schema.
const c10::IValue& argument(const OperatorHandle& op, const Stack& stack, const char* name) {
  const auto index = op.schema().argumentIndexWithName(name);
  TORCH_INTERNAL_ASSERT(index.has_value());
  return stack[stack.size() - op.schema().arguments().size() + static_cast<size_t>(*index)];
}

at::Tensor first(const OperatorHandle& op, const Stack& stack) {
  const c10::IValue& value = stack[stack.size() - op.schema().arguments().size()];
  return value.isTensor() ? value.toTensor() : at::Tensor();
}

std::string same(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  return finish(op, stack, make_alias(self, quantized(self).transposed()));
}

std::string duplicate(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  const QuantizedTensorImpl& weight = quantized(self);
  return finish(op, stack,
                make_tensor(std::make_shared<const StoredWeight>(clone(*weight.stored())), self.scalar_type(),
                            weight.transposed(), weight.product()));
}

std::string unchanged(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  return finish(op, stack, self);
}

/// A transposed tensor keeps its codes and its flag, unless its layout can turn codes.
std::string contiguous(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (is_quantized(self) && quantized(self).transposed() &&
      find_layout_op(op.operator_name(), quantized(self).stored()->layout.format->name) != nullptr)
    return "codes are in another order";
  return unchanged(op, stack);
}

std::string transpose(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  if (self.dim() > 3) return "codes of a convolution cannot be transposed";
  if (self.dim() > 2 && op.schema().name() == "aten::numpy_T") return "codes cannot change the order of all dimensions";
  if (op.schema().arguments().size() == 3) {
    const int64_t dims = self.dim(), a = c10::maybe_wrap_dim(argument(op, stack, "dim0").toInt(), dims),
                  b = c10::maybe_wrap_dim(argument(op, stack, "dim1").toInt(), dims);
    if (a == b) return same(op, stack);
    if (std::min(a, b) != dims - 2) return "only the last two dimensions of codes can be exchanged";
  }
  return finish(op, stack, make_alias(self, !quantized(self).transposed()));
}

bool is_logical(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

/// All forms of `to`: a device moves the codes, a dtype changes what dtype() answers.
std::string convert(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  const QuantizedTensorImpl& weight = quantized(self);
  at::ScalarType type = self.scalar_type();
  at::Device device = self.device();
  const auto& schema = op.schema();
  const auto given = [&](const char* name) -> const c10::IValue* {
    if (!schema.argumentIndexWithName(name)) return nullptr;
    const c10::IValue& value = argument(op, stack, name);
    return value.isNone() ? nullptr : &value;
  };
  if (const auto* other = given("other")) {
    type = other->toTensor().scalar_type();
    device = other->toTensor().device();
  }
  if (const auto* value = given("dtype")) type = value->toScalarType();
  if (const auto* value = given("device")) device = value->toDevice();
  if (!is_logical(type)) return fmt::format("codes cannot stand for {}", c10::toString(type));
  const auto* copies = given("copy");
  const bool copy = schema.name() == "aten::_to_copy" || (copies != nullptr && copies->toBool());
  if (!copy && type == self.scalar_type() && device == self.device()) return finish(op, stack, self);
  auto stored = weight.stored();
  if (device != self.device())
    stored = std::make_shared<const StoredWeight>(to_device(*stored, device));
  else if (copy)
    stored = std::make_shared<const StoredWeight>(clone(*stored));
  return finish(op, stack, make_tensor(std::move(stored), type, weight.transposed(), weight.product()));
}

bool same_layout(const formats::Layout& a, const formats::Layout& b) {
  return a.format == b.format && a.options == b.options && a.shape == b.shape;
}

/// quantized <- quantized of the same layout: the codes; quantized <- floats: quantized as it is stored;
/// floats <- quantized: values (by the fallback).
std::string copy_in(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack), source = argument(op, stack, "src").toTensor();
  if (!is_quantized(self)) return kNotFirst;
  auto& impl = *static_cast<QuantizedTensorImpl*>(self.unsafeGetTensorImpl());
  if (is_quantized(source) && same_layout(quantized(source).stored()->layout, impl.stored()->layout) &&
      quantized(source).transposed() == impl.transposed()) {
    const StoredWeight& from = *quantized(source).stored();
    impl.replace(std::make_shared<const StoredWeight>(from.device() == self.device() ? clone(from)
                                                                                     : to_device(from, self.device())));
  } else {
    at::Tensor values = dequantized(source).to(self.device());
    if (!is_logical(values.scalar_type())) values = values.to(at::kFloat);
    impl.replace(quantized(requantize_like(values.expand(self.sizes()), self)).stored());
  }
  return finish(op, stack, self);
}

std::string new_like(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  if (!argument(op, stack, "dtype").isNone() || !argument(op, stack, "device").isNone())
    return "another dtype or device";
  const QuantizedTensorImpl& weight = quantized(self);
  StoredWeight fresh{.layout = weight.stored()->layout, .convolution = weight.stored()->convolution};
  for (const at::Tensor& tensor : weight.stored()->tensors) fresh.tensors.push_back(at::empty_like(tensor));
  return finish(op, stack,
                make_tensor(std::make_shared<const StoredWeight>(std::move(fresh)), self.scalar_type(),
                            weight.transposed(), weight.product()));
}

std::string reshape(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack);
  if (!is_quantized(self)) return kNotFirst;
  const char* name = op.schema().argumentIndexWithName("size") ? "size" : "shape";
  std::vector<int64_t> sizes = argument(op, stack, name).toIntVector();
  int64_t known = 1;
  for (const int64_t size : sizes) known *= size >= 0 ? size : 1;
  for (int64_t& size : sizes)
    if (size < 0) size = known == 0 ? 0 : self.numel() / known;
  if (self.sizes() == at::IntArrayRef(sizes)) return same(op, stack);
  const bool view = op.schema().name().find("reshape") == std::string::npos;
  TORCH_CHECK(!view, "a weight stored as ", quantized(self).stored()->layout.format->name, " of shape ", self.sizes(),
              " has no view of shape ", at::IntArrayRef(sizes),
              ": its scales belong to rows and blocks. reshape() makes a ", "dequantized copy");
  return "codes cannot be reshaped";
}

std::string compatible(const OperatorHandle& op, Stack& stack) {
  const at::Tensor self = first(op, stack), from = argument(op, stack, "from").toTensor();
  return finish(op, stack, is_quantized(self) && is_quantized(from));
}

std::string no(const OperatorHandle& op, Stack& stack) {
  return finish(op, stack, false);
}

}  // namespace

std::span<const Operation> generic_operations() {
  static const std::vector<Operation> operations = {
      {"aten::detach", same},
      {"aten::alias", same},
      {"aten::detach_", unchanged},
      {"aten::contiguous", contiguous},
      {"aten::clone", duplicate},
      {"aten::t", transpose},
      {"aten::mT", transpose},
      {"aten::numpy_T", transpose},
      {"aten::transpose.int", transpose},
      {"aten::to.dtype", convert},
      {"aten::to.dtype_layout", convert},
      {"aten::to.device", convert},
      {"aten::to.other", convert},
      {"aten::_to_copy", convert},
      {"aten::copy_", copy_in},
      {"aten::empty_like", new_like},
      {"aten::view", reshape},
      {"aten::reshape", reshape},
      {"aten::_unsafe_view", reshape},
      {"aten::_has_compatible_shallow_copy_type", compatible},
      {"aten::is_pinned", no},
  };
  return operations;
}

}  // namespace mezzotint::tensor
