#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/base/round_up.h"
#include "mezzotint/formats/format.h"

/// Formats whose stored codes are padded: what the weight's own shape was.
namespace mezzotint::formats {

/// Dimensions up to here are taken from files, so that products of two stay in range.
inline constexpr int64_t kLargestDimension = int64_t{1} << 40;

/// "orig_shape" of the marker, if padding its last two dimensions to multiples of `align` gives `padded`.
inline std::optional<Shape> marked_shape(const StoredLayer& layer, const Shape& padded, int64_t align) {
  if (layer.marker == nullptr || !layer.marker->is_object()) return std::nullopt;
  const auto found = layer.marker->find("orig_shape");
  if (found == layer.marker->end() || !found->is_array() || found->size() != padded.size()) return std::nullopt;
  Shape shape;
  for (size_t i = 0; i < padded.size(); ++i) {
    if (!(*found)[i].is_number_integer()) return std::nullopt;
    const auto dim = (*found)[i].get<int64_t>();
    if (dim < 1 || dim > kLargestDimension) return std::nullopt;
    if ((i + 2 < padded.size() ? dim : round_up_to(dim, align)) != padded[i]) return std::nullopt;
    shape.push_back(dim);
  }
  return shape;
}

/// The weight's shape. Its module knows it, and no loader asks the file. What the file tells, best first: the bias
/// (rows), the marker's orig_shape, the codes with their padding.
inline Shape logical_shape(const StoredLayer& layer, const Shape& padded, int64_t align,
                           std::vector<std::string>& problems) {
  const std::optional<Shape> marked = marked_shape(layer, padded, align);
  Shape shape = marked.value_or(padded);
  int64_t& rows = shape[shape.size() - 2];
  if (layer.rows_hint && *layer.rows_hint != rows && *layer.rows_hint >= 1 && *layer.rows_hint <= kLargestDimension &&
      round_up_to(*layer.rows_hint, align) == padded[padded.size() - 2]) {
    if (marked)
      problems.push_back("The marker's orig_shape has " + std::to_string(rows) + " rows, but the bias has " +
                         std::to_string(*layer.rows_hint) + ".");
    rows = *layer.rows_hint;
  }
  return shape;
}

}  // namespace mezzotint::formats
