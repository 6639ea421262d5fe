#pragma once
#include <ATen/core/boxing/KernelFunction.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

/// Which code runs an operation on quantized tensors. Looked up in this order: operations of every layout (generic),
/// operations of one layout, operations that our kernels do for any layout; then the boxed fallback dequantizes and
/// calls the operation again (dispatch.h counts that).
namespace mezzotint::tensor {

/// Takes the arguments off the stack and puts the results on it, and returns ""; or leaves the stack alone and returns
/// why it does not do this call ("the weight is on another device").
using BoxedOperation = std::function<std::string(const c10::OperatorHandle&, torch::jit::Stack&)>;

/// `operation` is a name with its overload ("aten::linear", "aten::to.dtype"). Registering one again replaces it. Safe
/// from several threads.
void register_generic_op(std::string_view operation, BoxedOperation kernel);
/// `format` is a format's name; "" stands for every format that has no kernel of its own. The format is that of the
/// first quantized argument.
void register_layout_op(std::string_view operation, std::string_view format, BoxedOperation kernel);

/// The same for a function with the operation's own arguments, e.g.
/// at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias).
template <class Result, class... Arguments>
void register_layout_op(std::string_view operation, std::string_view format, Result (*function)(Arguments...)) {
  register_layout_op(operation, format,
                     [kernel = c10::KernelFunction::makeFromUnboxedRuntimeFunction(function)](
                         const c10::OperatorHandle& op, torch::jit::Stack& stack) {
                       kernel.callBoxed(op, c10::DispatchKeySet(), &stack);
                       return std::string();
                     });
}

/// Null where there is none.
const BoxedOperation* find_generic_op(const c10::OperatorName& operation);
const BoxedOperation* find_layout_op(const c10::OperatorName& operation, std::string_view format);

}  // namespace mezzotint::tensor
