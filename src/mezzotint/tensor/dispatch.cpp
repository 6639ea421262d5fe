#include "mezzotint/tensor/dispatch.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/library.h>

#include <cstdlib>
#include <mutex>
#include <set>
#include <vector>

#include "mezzotint/tensor/quantized_tensor.h"
#include "mezzotint/tensor/registry.h"

namespace mezzotint::tensor {
namespace {

thread_local DispatchScope* innermost = nullptr;

// A line for every operation and format that is dequantized, once; all reasons with MEZZOTINT_LOG=dispatch.
void log_fallback(const std::string& operation, const std::string& format, const std::string& reason) {
  static std::mutex mutex;
  static std::set<std::pair<std::string, std::string>> seen;
  const std::lock_guard lock(mutex);
  if (!seen.emplace(operation, format).second) return;
  TORCH_WARN("mezzotint: ", operation, " of ", format, " computes with dequantized values: ", reason);
}

}  // namespace

struct DispatchLog {
  static void add(const c10::OperatorHandle& op, const at::Tensor& weight, const std::string& reason, bool fallback) {
    const std::string operation = toString(op.operator_name());
    const std::string format(quantized(weight).stored()->layout.format->name);
    for (DispatchScope* scope = innermost; scope != nullptr; scope = scope->outer_) {
      TORCH_CHECK(!fallback || scope->fallback_ == DispatchScope::Fallback::allowed, operation, " of ", format,
                  " would compute with dequantized values: ", reason);
      ++scope->calls_[{operation, quantized(weight).product()->name, format, reason}];
    }
    if (fallback) log_fallback(operation, format, reason);
  }
};

DispatchScope::DispatchScope(Fallback fallback) : fallback_(fallback), outer_(innermost) {
  innermost = this;
}
DispatchScope::~DispatchScope() {
  innermost = outer_;
}

uint64_t DispatchScope::dequantized() const {
  uint64_t sum = 0;
  for (const auto& [key, calls] : calls_)
    if (!std::get<3>(key).empty()) sum += calls;
  return sum;
}

std::vector<DispatchRow> DispatchScope::rows() const {
  std::vector<DispatchRow> rows;
  for (const auto& [key, calls] : calls_)
    rows.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), std::get<3>(key), calls});
  return rows;
}

std::string DispatchScope::summary() const {
  std::string text;
  for (const DispatchRow& row : rows())
    text += fmt::format("{:<40} {:<24} {:<20} {:>6} {}\n", row.layer.empty() ? "-" : row.layer, row.operation,
                        row.format, row.calls, row.reason.empty() ? "codes" : "dequantized: " + row.reason);
  return text;
}

namespace {

using torch::jit::Stack;

/// Calls `visit` for every tensor among the last `count` values of the stack, lists included.
template <class Visit>
void visit_tensors(Stack& stack, size_t count, Visit&& visit) {
  for (size_t i = stack.size() - count; i < stack.size(); ++i) {
    c10::IValue& value = stack[i];
    const size_t argument = i - (stack.size() - count);
    if (value.isTensor()) {
      at::Tensor tensor = value.toTensor();
      if (visit(tensor, argument)) value = tensor;
    } else if (value.isTensorList()) {
      auto list = value.toTensorList();
      std::vector<at::Tensor> tensors = list.vec();
      bool changed = false;
      for (at::Tensor& tensor : tensors) changed |= visit(tensor, argument);
      if (changed) value = tensors;
    } else if (value.isOptionalTensorList()) {
      auto list = value.toOptionalTensorList().copy();
      bool changed = false;
      for (size_t k = 0; k < list.size(); ++k) {
        const std::optional<at::Tensor> held = list.get(k);
        if (!held) continue;
        at::Tensor tensor = *held;
        if (!visit(tensor, argument)) continue;
        list.set(k, tensor);
        changed = true;
      }
      if (changed) value = list;
    }
  }
}

at::Tensor first_quantized(Stack& stack, size_t count) {
  at::Tensor found;
  visit_tensors(stack, count, [&](at::Tensor& tensor, size_t) {
    if (!found.defined() && is_quantized(tensor)) found = tensor;
    return false;
  });
  return found;
}

/// Computes with values. What the operation writes into is quantized again afterwards, in the same layout.
void call_dequantized(const c10::OperatorHandle& op, Stack& stack) {
  const auto& arguments = op.schema().arguments();
  struct Written {
    at::Tensor quantized, values;
  };
  std::vector<Written> written;
  visit_tensors(stack, arguments.size(), [&](at::Tensor& tensor, size_t argument) {
    if (!is_quantized(tensor)) return false;
    const at::Tensor values = dequantized(tensor);
    const auto* alias = arguments[argument].alias_info();
    if (alias != nullptr && alias->isWrite()) written.push_back({tensor, values});
    tensor = values;
    return true;
  });
  op.callBoxed(&stack);
  for (const auto& [target, values] : written) {
    auto& impl = *static_cast<QuantizedTensorImpl*>(target.unsafeGetTensorImpl());
    TORCH_CHECK(values.sizes() == target.sizes(), toString(op.operator_name()),
                " cannot change the shape of a quantized tensor");
    impl.replace(quantized(requantize_like(values, target)).stored());
  }
  if (written.empty()) return;
  visit_tensors(stack, op.schema().returns().size(), [&](at::Tensor& result, size_t) {
    for (const auto& [target, values] : written)
      if (result.is_same(values)) {
        result = target;
        return true;
      }
    return false;
  });
}

void fallback(const c10::OperatorHandle& op, Stack* stack) {
  const size_t count = op.schema().arguments().size();
  const at::Tensor weight = first_quantized(*stack, count);
  if (!weight.defined()) {  // an argument that the operation does not look into
    const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::DeferredInit);
    op.callBoxed(stack);
    return;
  }
  if (const BoxedOperation* generic = find_generic_op(op.operator_name()))
    if ((*generic)(op, *stack).empty()) return;
  std::string reason = "no kernel";
  if (const BoxedOperation* kernel =
          find_layout_op(op.operator_name(), quantized(weight).stored()->layout.format->name)) {
    reason = (*kernel)(op, *stack);
    if (reason.empty()) return DispatchLog::add(op, weight, "", false);
  }
  DispatchLog::add(op, weight, reason, true);
  call_dequantized(op, *stack);
}

}  // namespace

// Here and not in a static object, which a linker may leave out of a program.
void install_dispatch() {
  static const auto library = [] {
    auto made =
        std::make_unique<torch::Library>(torch::Library::IMPL, "_", c10::DispatchKey::DeferredInit, __FILE__, __LINE__);
    made->fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
    return made;
  }();
}

}  // namespace mezzotint::tensor
