#pragma once
#include <cstdint>
#include <string>

#include "mezzotint/adapter/tensor.h"

namespace mezzotint::adapter {

/// The shape that a tensor reshape_weight says, for factors of [rows, cols]. Throws Error "adapter-shape" where it is
/// none, cuts the weight, or is not that of the factors.
Shape enlarged_shape(const Tensor& sizes, const Shape& weight, int64_t rows, int64_t cols, const std::string& target);

}  // namespace mezzotint::adapter
