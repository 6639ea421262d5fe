#include <cmath>
#include <cstring>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/error.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::formats {
namespace {

bool castable(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

/// Values of a tensor of one of the float dtypes that parameters come in, or empty for any other dtype.
std::vector<float> widen(DType dtype, std::span<const std::byte> bytes) {
  std::vector<float> values;
  if (castable(dtype)) {
    const int64_t count = static_cast<int64_t>(bytes.size() * 8 / facts(dtype).bits);
    values.resize(static_cast<size_t>(count));
    kernel::cast({bytes.data(), dtype, 1, count, count}, DType::f32, values.data(), count);
  } else if (dtype == DType::f64) {
    values.resize(bytes.size() / 8);
    for (size_t i = 0; i < values.size(); ++i) {
      double value = 0;
      std::memcpy(&value, bytes.data() + i * 8, 8);
      values[i] = static_cast<float>(value);
    }
  } else if (dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2) {
    values.reserve(bytes.size());
    for (const std::byte code : bytes)
      values.push_back(dtype == DType::f8_e4m3 ? E4m3::decode(static_cast<uint32_t>(code))
                                               : E5m2::decode(static_cast<uint32_t>(code)));
  }
  return values;
}

}  // namespace

std::vector<std::byte> canonical_parameter(const StoredTensor& wanted, DType dtype, const Shape& shape,
                                           std::vector<std::byte> bytes) {
  const auto mismatch = [&] {
    return Error({.name = "parameter-mismatch",
                  .problem = "the stored parameter cannot be read as the format needs it",
                  .tensor = wanted.suffix,
                  .expected = std::string(name(wanted.dtype)) + " " + to_string(wanted.shape),
                  .found = std::string(name(dtype)) + " " + to_string(shape)});
  };
  const auto count = element_count(shape);
  const auto wanted_count = element_count(wanted.shape);
  if (!count || !wanted_count || byte_count(dtype, shape) != bytes.size()) throw mismatch();
  if (*count != *wanted_count && *count != 1) throw mismatch();

  std::vector<std::byte> converted;
  if (dtype == wanted.dtype || (facts(dtype).bits == 8 && facts(wanted.dtype).bits == 8)) {
    converted = std::move(bytes);
  } else {
    const std::vector<float> values = widen(dtype, bytes);
    if (values.empty() || !castable(wanted.dtype)) throw mismatch();
    const int64_t n = static_cast<int64_t>(values.size());
    converted.resize(values.size() * facts(wanted.dtype).bits / 8);
    kernel::cast({values.data(), DType::f32, 1, n, n}, wanted.dtype, converted.data(), n);
  }
  if (*count == *wanted_count) return converted;
  std::vector<std::byte> repeated;
  repeated.reserve(converted.size() * *wanted_count);
  for (uint64_t i = 0; i < *wanted_count; ++i) repeated.insert(repeated.end(), converted.begin(), converted.end());
  return repeated;
}

void check_parameters(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  bool complete = true;
  for (size_t i = 1; i < layout.tensors.size(); ++i) {
    const StoredTensor& tensor = layout.tensors[i];
    if (parameters.tensors[i].size() != tensor_bytes(tensor)) {
      problems.push_back(tensor.suffix + " holds " + std::to_string(parameters.tensors[i].size()) + " bytes, not the " +
                         std::to_string(tensor_bytes(tensor)) + " of " + std::string(name(tensor.dtype)) + " " +
                         to_string(tensor.shape) + ".");
      complete = false;
      continue;
    }
    const std::vector<float> values = widen(tensor.dtype, parameters.tensors[i]);
    size_t bad = 0, first = 0;
    for (size_t k = values.size(); k-- > 0;)
      if (!std::isfinite(values[k])) {
        ++bad;
        first = k;
      }
    if (bad != 0)
      problems.push_back(tensor.suffix + " holds " + std::to_string(bad) + " of " + std::to_string(values.size()) +
                         " values that are inf or NaN, the first at index " + std::to_string(first) + ".");
  }
  if (complete && layout.format->verify) layout.format->verify(layout, parameters, problems);
}

}  // namespace mezzotint::formats
