#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

/// Activations as codes, by operations of ATen alone: the definitions of kernel/gemm/quantize_rows.h and
/// quantize_float.h, with the same bytes (NaN aside). x is [M, K], float32, bfloat16 or float16; scales are those of
/// rows unless `given` is one for all.
namespace mezzotint::tensor::cuda {

/// x ~ row_scale * codes * block scales.
struct Activations {
  at::Tensor codes;      ///< [M, ...]
  at::Tensor row_scale;  ///< [M, 1] or, where given, [1, 1]; float32; undefined = 1
  /// int8 blocks: float32 [M, blocks]. Others: one byte each, as cuBLASLt wants them (operand.h: swizzled).
  at::Tensor block_scales;
};

/// codes int8 [M, K]
Activations quantize_int8(const at::Tensor& x, std::optional<float> given);
/// codes int8 [M, K] within +-7
Activations quantize_int4(const at::Tensor& x, std::optional<float> given);
/// codes int8 [M, K], a scale for 128 columns, the last ones maybe fewer
Activations quantize_int8_blocks(const at::Tensor& x);
/// codes float8_e4m3fn [M, K]
Activations quantize_e4m3(const at::Tensor& x, std::optional<float> given);
/// codes float8_e4m3fn [M, up(K, 32)], e8m0 scales [up(M, 128), up(blocks, 4)] swizzled
Activations quantize_mx(const at::Tensor& x);
/// codes uint8 [M, up(K, 16) / 2], the even column in the high nibble, e4m3 scales swizzled
Activations quantize_fp4(const at::Tensor& x, std::optional<float> given);

}  // namespace mezzotint::tensor::cuda
