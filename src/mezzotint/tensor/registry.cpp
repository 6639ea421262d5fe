#include "mezzotint/tensor/registry.h"

#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "mezzotint/tensor/operations.h"

namespace mezzotint::tensor {
namespace {

struct Tables {
  std::shared_mutex mutex;
  std::map<std::string, BoxedOperation, std::less<>> generic;
  std::map<std::pair<std::string, std::string>, BoxedOperation> by_layout;

  Tables() {
    for (const auto& [operation, kernel] : generic_operations()) generic.emplace(operation, kernel);
    for (const auto operations : {product_operations(), gather_operations(), convolution_operations()})
      for (const auto& [operation, kernel] : operations)
        by_layout.emplace(std::pair(std::string(operation), std::string()), kernel);
    for (const auto& [operation, format, kernel] : blockwise_operations())
      by_layout.emplace(std::pair(std::string(operation), std::string(format)), kernel);
  }
};

Tables& tables() {
  static Tables tables;
  return tables;
}

std::string full_name(const c10::OperatorName& operation) {
  return operation.overload_name.empty() ? operation.name : operation.name + "." + operation.overload_name;
}

}  // namespace

void register_generic_op(std::string_view operation, BoxedOperation kernel) {
  const std::unique_lock lock(tables().mutex);
  tables().generic.insert_or_assign(std::string(operation), std::move(kernel));
}

void register_layout_op(std::string_view operation, std::string_view format, BoxedOperation kernel) {
  const std::unique_lock lock(tables().mutex);
  tables().by_layout.insert_or_assign({std::string(operation), std::string(format)}, std::move(kernel));
}

// Entries are never erased, so that what is found stays where it is.
const BoxedOperation* find_generic_op(const c10::OperatorName& operation) {
  const std::shared_lock lock(tables().mutex);
  const auto found = tables().generic.find(full_name(operation));
  return found == tables().generic.end() ? nullptr : &found->second;
}

const BoxedOperation* find_layout_op(const c10::OperatorName& operation, std::string_view format) {
  const std::shared_lock lock(tables().mutex);
  const std::string name = full_name(operation);
  for (const std::string_view key : {format, std::string_view()}) {
    const auto found = tables().by_layout.find({name, std::string(key)});
    if (found != tables().by_layout.end()) return &found->second;
  }
  return nullptr;
}

}  // namespace mezzotint::tensor
