#pragma once
#include <cassert>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/formats/format.h"
#include "mezzotint/kernel/source.h"

/// Small pieces that format rows are put together from. Nothing here knows a format.
namespace mezzotint::formats {

inline kernel::Source source(const Tile& tile) {
  return {tile.data, tile.dtype, tile.rows, tile.cols, tile.row_stride};
}

/// Index of the tile's elements in the weight, row * cols + col, for stochastic rounding.
inline kernel::ElementIndex element_index(const Layout& layout, const Tile& tile) {
  return {static_cast<uint64_t>(tile.row0) * static_cast<uint64_t>(layout.cols) + static_cast<uint64_t>(tile.col0),
          static_cast<uint64_t>(layout.cols)};
}

/// The importance of every column, or null.
inline const float* column_weight(const Layout& layout, const ChooseOptions& choose) {
  if (choose.column_weight.empty()) return nullptr;
  assert(static_cast<int64_t>(choose.column_weight.size()) == layout.cols);
  static_cast<void>(layout);
  return choose.column_weight.data();
}

/// A parameter of dtype F32.
inline float* floats(Parameters& parameters, size_t tensor) {
  return reinterpret_cast<float*>(parameters.tensors[tensor].data());
}
inline const float* floats(const Parameters& parameters, size_t tensor) {
  return reinterpret_cast<const float*>(parameters.tensors[tensor].data());
}
inline size_t float_count(const Parameters& parameters, size_t tensor) {
  return parameters.tensors[tensor].size() / sizeof(float);
}

/// The smallest float not below x: keeps a bound computed in double a bound.
float round_up(double x);

/// Why a shape cannot be a matrix of codes ("it is empty", "it has 4 dimensions"), or "": linear layers and embeddings
/// are [N, K], banks of experts [E, N, K]. Convolutions and other tensors are refused, since no loader reads a marker
/// on them.
std::string refuse_shape(const LayerFacts& facts);

/// A layout with everything but the parameters: one code of `code` per element, no padding. The shape must have passed
/// refuse_shape.
Layout matrix_layout(const Format& format, const Shape& shape, const Options& options, DType code);

/// Shape of a parameter with one value per expert: [] for a matrix, [E] for a bank.
Shape per_matrix_shape(const Shape& weight);
/// Shape of a parameter with one value per row: [N, 1], or [E, N, 1].
Shape per_row_shape(const Shape& weight);

/// Whether a scale may come in this dtype: F32, or another plain float type that converts to it.
bool is_scale_dtype(DType dtype);

/// Multiplies scales by 2^exponent if every product is exact and stays in [2^-126, 2^126]; else changes nothing and
/// returns false.
bool scale_floats(Parameters& parameters, size_t tensor, int exponent);

/// Reports scales that are zero or negative. `what` is the parameter's suffix.
void verify_positive(const Parameters& parameters, size_t tensor, std::string_view what,
                     std::vector<std::string>& problems);

/// Fields of a marker, or the default where it is absent or of another type.
int64_t marker_integer(const StoredLayer& layer, std::string_view field, int64_t otherwise);
bool marker_flag(const StoredLayer& layer, std::string_view field, bool otherwise);

/// "weight_scale is BF16 [3072]"
std::string tell(const TensorFacts& tensor);

}  // namespace mezzotint::formats
