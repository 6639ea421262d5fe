#include "mezzotint/tensor/dispatch.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string_view>
#include <vector>

#include "mezzotint/tensor/quantized_tensor.h"
#include "mezzotint/tensor/registry.h"
#include "mezzotint/tensor/stand_in.h"

namespace mezzotint::tensor {
namespace {

thread_local DispatchScope* innermost = nullptr;

struct Told {
  std::string kernel, reason;
};
thread_local Told told;

bool logs_everything() {
  static const bool asked = [] {
    const char* value = std::getenv("MEZZOTINT_LOG");
    return value != nullptr && std::string_view(value) == "dispatch";
  }();
  return asked;
}

/// Whether these words come for the first time in this process.
bool is_new(std::vector<std::string> words) {
  static std::mutex mutex;
  static std::set<std::vector<std::string>> seen;
  const std::lock_guard lock(mutex);
  return seen.insert(std::move(words)).second;
}

void log(const DispatchRow& row) {
  if (logs_everything()) {
    if (is_new({row.operation, row.layer, row.format, row.kernel, row.reason}))
      TORCH_WARN("mezzotint: ", row.operation, " of ", row.layer.empty() ? "a weight" : row.layer, " (", row.format,
                 "): ", row.kernel, row.reason.empty() ? "" : "; ", row.reason);
  } else if (row.dequantized && is_new({row.operation, row.format})) {
    TORCH_WARN("mezzotint: ", row.operation, " of ", row.format, " computes with dequantized values: ", row.reason);
  }
}

}  // namespace

struct DispatchLog {
  static void add(const c10::OperatorHandle& op, const at::Tensor& weight, std::string kernel, std::string reason,
                  bool dequantized) {
    if (!dequantized && !kernels_are_watched()) return;
    const DispatchRow row{.operation = toString(op.operator_name()),
                          .layer = quantized(weight).product()->name,
                          .format = format_label(weight),
                          .kernel = std::move(kernel),
                          .reason = std::move(reason),
                          .dequantized = dequantized};
    for (DispatchScope* scope = innermost; scope != nullptr; scope = scope->outer_) {
      TORCH_CHECK(!dequantized || scope->fallback_ == DispatchScope::Fallback::allowed, row.operation, " of ",
                  row.format, " would compute with dequantized values: ", row.reason);
      ++scope->calls_[{row.layer, row.operation, row.format, row.kernel, row.reason, row.dequantized}];
    }
    log(row);
  }
};

bool kernels_are_watched() {
  return innermost != nullptr || logs_everything();
}

void tell_kernel(std::string kernel, std::string reason) {
  told = {std::move(kernel), std::move(reason)};
}

DispatchScope::DispatchScope(Fallback fallback) : fallback_(fallback), outer_(innermost) {
  innermost = this;
}
DispatchScope::~DispatchScope() {
  innermost = outer_;
}

uint64_t DispatchScope::dequantized() const {
  uint64_t sum = 0;
  for (const auto& [key, calls] : calls_)
    if (std::get<bool>(key)) sum += calls;
  return sum;
}

std::vector<DispatchRow> DispatchScope::rows() const {
  std::vector<DispatchRow> rows;
  for (const auto& [key, calls] : calls_) {
    const auto& [layer, operation, format, kernel, reason, dequantized] = key;
    rows.push_back({operation, layer, format, kernel, reason, dequantized, calls});
  }
  return rows;
}

std::string DispatchScope::summary() const {
  const std::vector<DispatchRow> all = rows();
  const std::array<std::string, 6> titles = {"layer", "operation", "format", "calls", "kernel", "why not faster"};
  std::vector<std::array<std::string, 6>> cells = {titles};
  for (const DispatchRow& row : all)
    cells.push_back({row.layer.empty() ? "-" : row.layer, row.operation, row.format, fmt::to_string(row.calls),
                     row.kernel, row.reason});
  std::array<size_t, 6> widths{};
  for (const auto& line : cells)
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  std::string text;
  for (const auto& line : cells) {
    std::string row;
    for (size_t i = 0; i < line.size(); ++i) row += fmt::format("{:<{}}", line[i], widths[i] + 2);
    text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
  }
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

bool is_copy_of_values(const at::Tensor& tensor) {
  return tensor.defined() && tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::DeferredInit) &&
         !is_quantized(tensor);
}

/// Views of dequantized values (of q[0], q.chunk(2)) are views of a copy: what is written into them would never reach
/// the codes. They inherit the dispatch key of the values that the fallback made, so every operation on them comes by
/// here, and those that write are refused.
at::Tensor copy_of_values(const at::Tensor& quantized) {
  const at::Tensor values = dequantized(quantized);
  const c10::DispatchKeySet keys = values.key_set() | c10::DispatchKeySet(c10::DispatchKey::DeferredInit);
  at::Tensor marked = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(values.storage()), keys, values.dtype());
  marked.unsafeGetTensorImpl()->set_sizes_and_strides(values.sizes(), values.strides(), values.storage_offset());
  return marked;
}

bool writes(const c10::OperatorHandle& op, size_t argument) {
  const auto* alias = op.schema().arguments()[argument].alias_info();
  return alias != nullptr && alias->isWrite();
}

/// For calls without quantized tensors: those with a copy of values among what they write into throw.
void refuse_writing_into_copies(const c10::OperatorHandle& op, Stack& stack) {
  visit_tensors(stack, op.schema().arguments().size(), [&](at::Tensor& tensor, size_t argument) {
    TORCH_CHECK(
        !writes(op, argument) || !is_copy_of_values(tensor), toString(op.operator_name()),
        " would write into a copy: this tensor is a view of the dequantized values of a quantized weight, whose "
        "codes would not change. Write into the weight itself, or clone() the view first");
    return false;
  });
}

/// Computes with values. What the operation writes into is quantized again afterwards, in the same layout.
void call_dequantized(const c10::OperatorHandle& op, Stack& stack) {
  struct Written {
    at::Tensor quantized, values;
  };
  std::vector<Written> written;
  visit_tensors(stack, op.schema().arguments().size(), [&](at::Tensor& tensor, size_t argument) {
    if (!is_quantized(tensor)) return false;
    const at::Tensor values = copy_of_values(tensor);
    if (writes(op, argument)) written.push_back({tensor, values});
    tensor = values;
    return true;
  });
  {
    const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::DeferredInit);
    op.callBoxed(&stack);
  }
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

/// t() and the like of a matrix give a stand-in of the transposed matrix.
bool transpose_stand_in(const c10::OperatorHandle& op, Stack& stack, const StandInImpl& matrix) {
  static const std::set<std::string, std::less<>> names = {"aten::t", "aten::mT", "aten::numpy_T", "aten::transpose"};
  const size_t count = op.schema().arguments().size();
  if (matrix.dim() != 2 || !names.contains(op.schema().name())) return false;
  if (count == 3) {
    if (!torch::jit::peek(stack, 1, count).isInt()) return false;
    if (c10::maybe_wrap_dim(torch::jit::peek(stack, 1, count).toInt(), 2) ==
        c10::maybe_wrap_dim(torch::jit::peek(stack, 2, count).toInt(), 2))
      return false;
  }
  at::Tensor turned(c10::make_intrusive<StandInImpl>(matrix.behind().t(), matrix.interceptor(), !matrix.transposed()));
  torch::jit::drop(stack, count);
  torch::jit::push(stack, std::move(turned));
  return true;
}

/// For calls with stand-ins among their arguments: their interceptors do them, or the tensors behind take their places.
bool call_for_stand_ins(const c10::OperatorHandle& op, Stack& stack) {
  const size_t count = op.schema().arguments().size();
  std::vector<at::Tensor> found, written;
  visit_tensors(stack, count, [&](at::Tensor& tensor, size_t argument) {
    if (as_stand_in(tensor) == nullptr) return false;
    found.push_back(tensor);
    if (writes(op, argument)) written.push_back(tensor);
    return false;
  });
  for (const at::Tensor& tensor : found) {
    const StandInImpl& impl = *as_stand_in(tensor);
    if (transpose_stand_in(op, stack, impl) || impl.interceptor()->intercept(op, stack, tensor)) return true;
  }
  if (found.empty()) return false;
  visit_tensors(stack, count, [](at::Tensor& tensor, size_t) {
    const StandInImpl* impl = as_stand_in(tensor);
    if (impl != nullptr) tensor = at::Tensor(impl->behind());
    return impl != nullptr;
  });
  op.callBoxed(&stack);
  for (const at::Tensor& tensor : written) static_cast<StandInImpl*>(tensor.unsafeGetTensorImpl())->refresh();
  return true;
}

void fallback(const c10::OperatorHandle& op, Stack* stack) {
  if (call_for_stand_ins(op, *stack)) return;
  const size_t count = op.schema().arguments().size();
  const at::Tensor weight = first_quantized(*stack, count);
  refuse_writing_into_copies(op, *stack);
  if (!weight.defined()) {  // a copy of values, or an argument that the operation does not look into
    const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::DeferredInit);
    op.callBoxed(stack);
    return;
  }
  if (const BoxedOperation* generic = find_generic_op(op.operator_name()))
    if ((*generic)(op, *stack).empty()) return;
  std::string reason = "no kernel";
  if (const BoxedOperation* kernel =
          find_layout_op(op.operator_name(), quantized(weight).stored()->layout.format->name)) {
    told = {"codes", ""};
    reason = (*kernel)(op, *stack);
    if (reason.empty()) return DispatchLog::add(op, weight, std::move(told.kernel), std::move(told.reason), false);
  }
  DispatchLog::add(op, weight, "dequantized", std::move(reason), true);
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
