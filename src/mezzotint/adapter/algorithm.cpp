#include "mezzotint/adapter/algorithm.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace mezzotint::adapter {

const Part* Parts::find(std::string_view role) const {
  const auto found = std::ranges::find(parts, role, &Part::role);
  return found == parts.end() ? nullptr : &*found;
}

const Shape& Parts::shape(std::string_view role) const {
  const Part* part = find(role);
  assert(part);
  return part->shape;
}

const Tensor* Factors::find(std::string_view role) const {
  for (const auto& [name, tensor] : tensors)
    if (name == role) return &tensor;
  return nullptr;
}

const Tensor& Factors::at(std::string_view role) const {
  const Tensor* tensor = find(role);
  assert(tensor);
  return *tensor;
}

Tensor Factors::take(std::string_view role) {
  for (auto& [name, tensor] : tensors)
    if (name == role) return std::move(tensor);
  return {};
}

double Factors::scale(int64_t rank) const {
  if (!alpha) return 1;
  const auto r = static_cast<double>(rank);
  return *alpha / (rank_stabilized ? std::sqrt(r) : r);
}

double Factors::scale_of_whole() const {
  return alpha && rank_stabilized ? std::cbrt(*alpha) : 1;
}

double Factors::bound(int64_t rows) const {
  return alpha.value_or(0) * (constraint_per_row ? static_cast<double>(rows) : 1);
}

Error Factors::error(std::string problem) const {
  return Error({.name = "adapter-shape", .problem = std::move(problem), .tensor = target});
}

const Algorithm* find_algorithm(std::string_view name) {
  for (const Algorithm* algorithm : all_algorithms())
    if (algorithm->name == name) return algorithm;
  return nullptr;
}

}  // namespace mezzotint::adapter
