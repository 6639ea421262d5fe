#include "mezzotint/formats/common/pieces.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

namespace mezzotint::formats {

float round_up(double x) {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) < x ? std::nextafter(nearest, std::numeric_limits<float>::infinity()) : nearest;
}

std::string refuse_shape(const LayerFacts& facts) {
  if (facts.kind == LayerKind::convolution) return "it is a convolution, and no loader reads a marker on those";
  if (facts.kind == LayerKind::other) return "it is not the weight of a linear layer or embedding";
  const size_t rank = facts.kind == LayerKind::expert_bank ? 3 : 2;
  if (facts.shape.size() != rank)
    return "it has " + std::to_string(facts.shape.size()) + " dimensions, not " + std::to_string(rank);
  if (element_count(facts.shape).value_or(0) == 0) return "it is empty";
  return "";
}

Layout matrix_layout(const Format& format, const Shape& shape, const Options& options, DType code) {
  Layout layout;
  layout.format = &format;
  layout.options = options;
  layout.shape = shape;
  layout.experts = shape.size() == 3 ? shape[0] : 1;
  layout.rows = shape[shape.size() - 2];
  layout.cols = shape.back();
  layout.stored_rows = layout.rows;
  layout.row_bytes = layout.cols * static_cast<int64_t>(facts(code).bits) / 8;
  layout.tensors.push_back({"weight", code, shape});
  return layout;
}

Shape per_matrix_shape(const Shape& weight) {
  return weight.size() == 3 ? Shape{weight[0]} : Shape{};
}

Shape per_row_shape(const Shape& weight) {
  Shape shape = weight;
  shape.back() = 1;
  return shape;
}

bool is_scale_dtype(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f64;
}

bool scale_floats(Parameters& parameters, size_t tensor, int exponent) {
  float* values = floats(parameters, tensor);
  const size_t count = float_count(parameters, tensor);
  for (size_t i = 0; i < count; ++i) {
    const float scaled = std::ldexp(values[i], exponent);
    if (!(scaled >= 0x1p-126f && scaled <= 0x1p126f)) return false;
  }
  for (size_t i = 0; i < count; ++i) values[i] = std::ldexp(values[i], exponent);
  return true;
}

void verify_positive(const Parameters& parameters, size_t tensor, std::string_view what,
                     std::vector<std::string>& problems) {
  const float* values = floats(parameters, tensor);
  const size_t count = float_count(parameters, tensor);
  size_t bad = 0, first = 0;
  for (size_t i = count; i-- > 0;)
    if (values[i] <= 0) {
      ++bad;
      first = i;
    }
  if (bad != 0)
    problems.push_back(std::string(what) + " holds " + std::to_string(bad) + " of " + std::to_string(count) +
                       " values that are zero or negative, the first at index " + std::to_string(first) + ".");
}

int64_t marker_integer(const StoredLayer& layer, std::string_view field, int64_t otherwise) {
  if (layer.marker == nullptr || !layer.marker->is_object()) return otherwise;
  const auto found = layer.marker->find(field);
  if (found == layer.marker->end() || !found->is_number_integer()) return otherwise;
  if (found->is_number_unsigned() && found->get<uint64_t>() > uint64_t{1} << 62) return otherwise;
  return found->get<int64_t>();
}

bool marker_flag(const StoredLayer& layer, std::string_view field, bool otherwise) {
  if (layer.marker == nullptr || !layer.marker->is_object()) return otherwise;
  const auto found = layer.marker->find(field);
  return found != layer.marker->end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

std::string tell(const TensorFacts& tensor) {
  return tensor.suffix + " is " + std::string(name(tensor.dtype)) + " " + to_string(tensor.shape);
}

}  // namespace mezzotint::formats
