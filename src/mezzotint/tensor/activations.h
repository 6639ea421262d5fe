#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

/// Activations as block-wise int8 codes: a quantized tensor of any rank with one scale for every 128 values of its last
/// dimension, stored as the format with such blocks stores rows (int8_blockwise:geometry=row_group). Then gelu, t and
/// transpose followed by contiguous, and the input of linear work on the codes, quantized in and (but for linear)
/// quantized out. Everything else dequantizes, as with any quantized tensor.
namespace mezzotint::tensor {

/// Throws Error "shape-refused" where the last dimension is no multiple of 128 or x is empty. The logical dtype is that
/// of x.
at::Tensor quantize_activations(const at::Tensor& x);

/// Whether a tensor is what quantize_activations makes.
bool is_activation(const at::Tensor& tensor);

/// x W^T + bias for activations x and a weight in tiles of 128 x 128 of the same format, integers with integers, in the
/// logical dtype of x; undefined where these are other operands.
at::Tensor multiply_codes(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias);

}  // namespace mezzotint::tensor
