#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/source.h"

/// Values quantized in one pass, where a scale belongs to few consecutive values of a row.
namespace mezzotint::kernel::cuda {

enum class Group : uint8_t {
  fp4_16,    ///< 4-bit floats, an e4m3 scale for 16 and a float32 scale for all; blocked scales
  fp8_32,    ///< e4m3, a power of two for 32; blocked scales
  int8_128,  ///< int8 in +-127, a float32 scale for 128, row-major [rows, up(cols, 128) / 128]
};

/// Columns that share a scale.
constexpr int64_t group_size(Group group) {
  return group == Group::fp4_16 ? 16 : group == Group::fp8_32 ? 32 : 128;
}
/// Groups of a row, a partial one included.
constexpr int64_t group_count(Group group, int64_t cols) {
  return (cols + group_size(group) - 1) / group_size(group);
}
/// Rows or columns of the codes: padded to multiples of 16, of 32, not at all.
constexpr int64_t group_padded(Group group, int64_t size) {
  return group == Group::int8_128 ? size : group_count(group, size) * group_size(group);
}
/// Bytes of the scales, blocked ones with their padding to 128 x 4.
constexpr uint64_t group_scale_bytes(Group group, int64_t rows, int64_t cols) {
  const int64_t groups = group_count(group, cols);
  if (group == Group::int8_128) return static_cast<uint64_t>(rows * groups) * sizeof(float);
  return static_cast<uint64_t>((group_padded(group, rows) + 127) / 128 * 128 * ((groups + 3) / 4 * 4));
}

/// Chooses the scales and writes them and the codes, padding (zeros) included. `tensor_scale` points at the scale of
/// the whole weight (fp4_16) and is null otherwise; `floor` is the smallest scale of int8_128. Rows of codes are
/// packed.
void quantize_groups(Group group, const Source& x, const float* tensor_scale, float floor, uint8_t* codes, void* scales,
                     const Rounding& rounding, const ElementIndex& index, Stream stream);

/// The inverse map of fp4_16 and fp8_32 to [rows, cols] of f32, bf16 or f16. int8_128: decode() of codec.h.
void dequantize_groups(Group group, const uint8_t* codes, const uint8_t* scales, const float* tensor_scale,
                       int64_t rows, int64_t cols, void* out, DType to, int64_t out_stride, Stream stream);

}  // namespace mezzotint::kernel::cuda
