#pragma once
#include <map>
#include <optional>
#include <string>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/checkpoint/weight_values.h"

/// The parts of a model by names that do not depend on how it is stored, so that two files pair up (room-internal).
namespace mezzotint::convert {

/// A weight or any other tensor that stands for itself. Parameters and markers belong to their layer's weight.
struct ModelEntry {
  size_t tensor = 0;
  const checkpoint::Layer* layer = nullptr;

  const io::TensorInfo& info(const checkpoint::Model& model) const { return model.source().tensors()[tensor]; }
  /// Logical shape.
  const Shape& shape(const checkpoint::Model& model) const;
  /// Format label or dtype.
  std::string label(const checkpoint::Model& model) const;
  /// Nothing for dtypes that cannot be read as numbers.
  std::optional<checkpoint::WeightValues> values(const checkpoint::Model& model) const;
};

using ModelEntries = std::map<std::string, ModelEntry, std::less<>>;
ModelEntries entries_of(const checkpoint::Model& model);

/// Same codes and same parameters: the number of tensors that are equal, 0 if anything differs.
uint64_t identical_tensors(const checkpoint::Model& in_a, const ModelEntry& a, const checkpoint::Model& in_b,
                           const ModelEntry& b);

}  // namespace mezzotint::convert
