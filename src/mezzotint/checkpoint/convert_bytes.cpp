#include "mezzotint/checkpoint/convert_bytes.h"

#include <cstring>

#include "mezzotint/base/bf16.h"
#include "mezzotint/base/error.h"
#include "mezzotint/base/fp16.h"

namespace mezzotint::checkpoint {
namespace {

float load(const std::byte* data, DType dtype) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, data, sizeof value);
    return value;
  }
  if (dtype == DType::f64) {
    double value;
    std::memcpy(&value, data, sizeof value);
    return static_cast<float>(value);
  }
  uint16_t bits;
  std::memcpy(&bits, data, sizeof bits);
  return dtype == DType::bf16 ? bf16_to_float(bits) : fp16_to_float(bits);
}

bool converts_by_value(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

}  // namespace

std::vector<std::byte> convert_bytes(std::vector<std::byte> bytes, const io::TensorInfo& from, DType to,
                                     const std::string& file) {
  if (from.dtype == to) return bytes;
  if (facts(from.dtype).bits == 8 && facts(to).bits == 8) return bytes;
  if (!converts_by_value(from.dtype) || to != DType::f32)
    throw Error({.name = "parameter-dtype",
                 .problem = "a parameter has a dtype that cannot be converted",
                 .file = file,
                 .tensor = from.name,
                 .expected = std::string(name(to)),
                 .found = std::string(name(from.dtype)),
                 .advice = "Run `mezzotint verify` on the file."});
  const size_t width = facts(from.dtype).bits / 8;
  const size_t count = bytes.size() / width;
  std::vector<std::byte> result(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    const float value = load(bytes.data() + i * width, from.dtype);
    std::memcpy(result.data() + i * sizeof value, &value, sizeof value);
  }
  return result;
}

}  // namespace mezzotint::checkpoint
