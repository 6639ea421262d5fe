#include "mezzotint/adapter/enlarge.h"

#include <fmt/format.h>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/base/error.h"

namespace mezzotint::adapter {

Shape enlarged_shape(const Tensor& sizes, const Shape& weight, int64_t rows, int64_t cols, const std::string& target) {
  const auto refuse = [&](std::string problem) {
    throw Error({.name = "adapter-shape", .problem = std::move(problem), .tensor = target});
  };
  Shape shape;
  for (const float size : sizes.values) {
    if (!(size >= 1 && size < 0x1p31f)) refuse("reshape_weight is no shape");
    shape.push_back(static_cast<int64_t>(size));
  }
  if (shape.size() != weight.size()) refuse("reshape_weight has other dimensions than the weight");
  if (!element_count(shape)) refuse("reshape_weight is too large");
  for (size_t i = 0; i < shape.size(); ++i)
    if (shape[i] < weight[i])
      refuse(fmt::format("it would cut the weight {} to {}", to_string(weight), to_string(shape)));
  if (rows != matrix_rows(shape) || cols != matrix_cols(shape))
    refuse(
        fmt::format("it is made for a weight of {}, reshape_weight says {}", size_text(rows, cols), to_string(shape)));
  return shape;
}

}  // namespace mezzotint::adapter
