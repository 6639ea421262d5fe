#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mezzotint {

/// Element types of a safetensors file (package 0.8.0), in the order its writer stores them: widest alignment first.
enum class DType : uint8_t {
  u64,
  i64,
  f64,
  c64,
  f32,
  u32,
  i32,
  bf16,
  f16,
  u16,
  i16,
  f8_e5m2fnuz,
  f8_e4m3fnuz,
  f8_e8m0,
  f8_e4m3,
  f8_e5m2,
  i8,
  u8,
  f6_e3m2,
  f6_e2m3,
  f4,
  boolean,
};

/// Facts of one dtype. Sizes are in bits because F6 and F4 are narrower than a byte.
struct DTypeFacts {
  DType dtype;
  std::string_view name;  ///< spelling in a safetensors header, e.g. "F8_E4M3"
  unsigned bits;
  bool is_float;
};

std::span<const DTypeFacts> all_dtypes();
const DTypeFacts& facts(DType dtype);
inline std::string_view name(DType dtype) {
  return facts(dtype).name;
}
std::optional<DType> dtype_from_name(std::string_view safetensors_name);

using Shape = std::vector<int64_t>;

/// Product of the dimensions (1 for rank 0); nullopt on a negative dimension or where it does not fit 63 bits.
std::optional<uint64_t> element_count(std::span<const int64_t> shape);
/// Bytes of a dense tensor; nullopt where it overflows or the bits do not fill whole bytes.
std::optional<uint64_t> byte_count(DType dtype, std::span<const int64_t> shape);
/// "[3072, 14336]"
std::string to_string(std::span<const int64_t> shape);

}  // namespace mezzotint
