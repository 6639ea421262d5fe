#include "mezzotint/checkpoint/weight_values.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <numeric>

#include "mezzotint/base/bf16.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/formats/driver.h"

namespace mezzotint::checkpoint {
namespace {

template <class T, class Decode>
void widen(const std::byte* bytes, uint64_t count, float* out, Decode decode) {
  for (uint64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    out[i] = decode(value);
  }
}

template <class T>
void widen_number(const std::byte* bytes, uint64_t count, float* out) {
  widen<T>(bytes, count, out, [](T value) { return static_cast<float>(value); });
}

template <class Code, class T>
void widen_code(const std::byte* bytes, uint64_t count, float* out) {
  widen<T>(bytes, count, out, [](T code) { return Code::decode(code); });
}

using Widen = void (*)(const std::byte*, uint64_t, float*);

Widen widener(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return widen_number<double>;
    case DType::f32:
      return widen_number<float>;
    case DType::bf16:
      return widen_code<Bf16, uint16_t>;
    case DType::f16:
      return widen_code<Fp16, uint16_t>;
    case DType::f8_e4m3:
      return widen_code<E4m3, uint8_t>;
    case DType::f8_e5m2:
      return widen_code<E5m2, uint8_t>;
    case DType::f8_e8m0:
      return widen_code<E8m0, uint8_t>;
    case DType::u64:
      return widen_number<uint64_t>;
    case DType::i64:
      return widen_number<int64_t>;
    case DType::u32:
      return widen_number<uint32_t>;
    case DType::i32:
      return widen_number<int32_t>;
    case DType::u16:
      return widen_number<uint16_t>;
    case DType::i16:
      return widen_number<int16_t>;
    case DType::u8:
    case DType::boolean:
      return widen_number<uint8_t>;
    case DType::i8:
      return widen_number<int8_t>;
    default:
      return nullptr;
  }
}

}  // namespace

bool is_readable(DType dtype) {
  return widener(dtype) != nullptr;
}

bool are_smoothing_factors(const io::TensorInfo& info, const formats::Layout& layout) {
  return facts(info.dtype).is_float && is_readable(info.dtype) &&
         element_count(info.shape) == static_cast<uint64_t>(layout.cols);
}

std::vector<float> column_factors(const Model& model, const Layer& layer) {
  if (!layer.smoothed) return {};
  assert(layer.consistent);
  const WeightValues values(model, *layer.pre_quant_scale);
  std::vector<float> factors(values.elements());
  std::vector<std::byte> bytes;
  values.read(0, values.elements(), factors.data(), bytes);
  return factors;
}

void scale_columns(const std::vector<float>& factors, uint64_t rows, float* values) {
  for (uint64_t r = 0; r < rows; ++r)
    for (const float factor : factors) *values++ *= factor;
}

WeightValues::WeightValues(const Model& model, const Layer& layer)
    : model_(&model),
      layer_(&layer),
      parameters_(model.parameters(layer)),
      factors_(column_factors(model, layer)),
      tensor_(layer.parts[0]) {
  elements_ = static_cast<uint64_t>(layer.layout.total_rows()) * static_cast<uint64_t>(layer.layout.cols);
  granule_ = static_cast<uint64_t>(layer.layout.row_granule) * static_cast<uint64_t>(layer.layout.cols);
  span_ = static_cast<uint64_t>(layer.layout.rows) * static_cast<uint64_t>(layer.layout.cols);
}

WeightValues::WeightValues(const Model& model, size_t tensor) : model_(&model), tensor_(tensor) {
  const io::TensorInfo& info = model.source().tensors()[tensor];
  assert(is_readable(info.dtype));
  elements_ = span_ = element_count(info.shape).value_or(0);
}

void WeightValues::rescale(const std::vector<float>& factors) {
  assert(!factors.empty() && elements_ % factors.size() == 0 &&
         (factors_.empty() || factors_.size() == factors.size()));
  factors_.resize(factors.size(), 1.0f);
  for (size_t i = 0; i < factors.size(); ++i) factors_[i] *= factors[i];
}

uint64_t WeightValues::stored_bytes(uint64_t count) const {
  if (layer_ != nullptr && layer_->layout.cols > 0)
    return count / static_cast<uint64_t>(layer_->layout.cols) * static_cast<uint64_t>(layer_->layout.row_bytes);
  return count * facts(model_->source().tensors()[tensor_].dtype).bits / 8;
}

void WeightValues::read(uint64_t first, uint64_t count, float* out, std::vector<std::byte>& bytes) const {
  if (count == 0) return;
  if (layer_ == nullptr) {
    const DType dtype = model_->source().tensors()[tensor_].dtype;
    const size_t width = facts(dtype).bits / 8;
    bytes.resize(count * width);
    model_->source().read(tensor_, first * width, bytes.data(), bytes.size());
    widener(dtype)(bytes.data(), count, out);
    if (!factors_.empty())
      for (uint64_t i = 0; i < count; ++i) out[i] *= factors_[(first + i) % factors_.size()];
    return;
  }
  const auto& layout = layer_->layout;
  const auto cols = static_cast<uint64_t>(layout.cols);
  assert(first % span_ % granule_ == 0 && first / span_ == (first + count - 1) / span_ && count % cols == 0);
  const auto row0 = static_cast<int64_t>(first / cols);
  const auto rows = static_cast<int64_t>(count / cols);
  bytes.resize(static_cast<size_t>(layout.code_rows(rows)) * static_cast<size_t>(layout.row_bytes));
  model_->read_codes(*layer_, row0, rows, bytes.data());
  formats::decode_rows(layout, parameters_, row0, rows, bytes.data(), out);
  scale_columns(factors_, static_cast<uint64_t>(rows), out);
}

std::vector<Run> cut_runs(const WeightValues& values, const WeightValues* other, uint64_t target) {
  uint64_t granule = std::max<uint64_t>(values.granule(), 1), span = values.span();
  if (other != nullptr) {
    assert(other->elements() == values.elements());
    granule = std::lcm(granule, std::max<uint64_t>(other->granule(), 1));
    span = std::min(span, other->span());
  }
  std::vector<Run> runs;
  if (values.elements() == 0) return runs;
  assert(values.elements() % span == 0);
  const uint64_t step = std::max<uint64_t>(target / granule, 1) * granule;
  for (uint64_t start = 0; start < values.elements(); start += span)
    for (uint64_t at = 0; at < span; at += step) runs.push_back({start + at, std::min(step, span - at)});
  return runs;
}

}  // namespace mezzotint::checkpoint
