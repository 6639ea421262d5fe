#include "mezzotint/base/dtype.h"

#include <cassert>

namespace mezzotint {
namespace {

constexpr DTypeFacts kFacts[] = {
    {DType::u64, "U64", 64, false},
    {DType::i64, "I64", 64, false},
    {DType::f64, "F64", 64, true},
    {DType::c64, "C64", 64, false},
    {DType::f32, "F32", 32, true},
    {DType::u32, "U32", 32, false},
    {DType::i32, "I32", 32, false},
    {DType::bf16, "BF16", 16, true},
    {DType::f16, "F16", 16, true},
    {DType::u16, "U16", 16, false},
    {DType::i16, "I16", 16, false},
    {DType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8, true},
    {DType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8, true},
    {DType::f8_e8m0, "F8_E8M0", 8, true},
    {DType::f8_e4m3, "F8_E4M3", 8, true},
    {DType::f8_e5m2, "F8_E5M2", 8, true},
    {DType::i8, "I8", 8, false},
    {DType::u8, "U8", 8, false},
    {DType::f6_e3m2, "F6_E3M2", 6, true},
    {DType::f6_e2m3, "F6_E2M3", 6, true},
    {DType::f4, "F4", 4, true},
    {DType::boolean, "BOOL", 8, false},
};

}  // namespace

std::span<const DTypeFacts> all_dtypes() {
  return kFacts;
}

const DTypeFacts& facts(DType dtype) {
  const auto& row = kFacts[static_cast<size_t>(dtype)];
  assert(row.dtype == dtype);
  return row;
}

std::optional<DType> dtype_from_name(std::string_view safetensors_name) {
  for (const auto& row : kFacts)
    if (row.name == safetensors_name) return row.dtype;
  return std::nullopt;
}

std::optional<uint64_t> element_count(std::span<const int64_t> shape) {
  uint64_t count = 1;
  bool empty = false;
  for (int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      empty = true;
      continue;
    }
    if (count > (uint64_t{1} << 62) / static_cast<uint64_t>(dim)) return std::nullopt;
    count *= static_cast<uint64_t>(dim);
  }
  return empty ? 0 : count;
}

std::optional<uint64_t> byte_count(DType dtype, std::span<const int64_t> shape) {
  const auto count = element_count(shape);
  const uint64_t bits = facts(dtype).bits;
  if (!count || *count > (uint64_t{1} << 62) / bits) return std::nullopt;
  if (*count * bits % 8 != 0) return std::nullopt;
  return *count * bits / 8;
}

std::string to_string(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace mezzotint
