#pragma once
#include <span>
#include <string_view>
#include <utility>

#include "mezzotint/tensor/registry.h"

/// What the library itself registers (room-internal).
namespace mezzotint::tensor {

using Operation = std::pair<std::string_view, BoxedOperation>;

/// Takes an operation's arguments off the stack and puts its result there: the end of a BoxedOperation that did it.
inline std::string finish(const c10::OperatorHandle& op, torch::jit::Stack& stack, c10::IValue result) {
  torch::jit::drop(stack, op.schema().arguments().size());
  torch::jit::push(stack, std::move(result));
  return "";
}

struct LayoutOperation {
  std::string_view operation, format;
  BoxedOperation kernel;
};

/// Copies, views, dtypes and devices of any layout (ops_generic.cpp).
std::span<const Operation> generic_operations();
/// Products of any layout (ops_product.cpp).
std::span<const Operation> product_operations();
/// Rows of a table of any layout (ops_gather.cpp).
std::span<const Operation> gather_operations();
/// Convolutions of any layout (ops_convolution.cpp).
std::span<const Operation> convolution_operations();
/// gelu and transposition of block-wise codes (ops_blockwise.cpp).
std::span<const LayoutOperation> blockwise_operations();

}  // namespace mezzotint::tensor
