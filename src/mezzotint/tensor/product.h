#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "mezzotint/formats/matmul.h"
#include "mezzotint/tensor/quantized_tensor.h"

/// Products of a stored weight: on the CPU by formats::matmul, on a GPU by cuda/product.h.
namespace mezzotint::tensor {

enum class Side : uint8_t {
  forward,   ///< y[..., N] = x[..., K] W^T
  backward,  ///< y[..., K] = g[..., N] W, as the gradient of the input
};

/// Whether ComfyUI's rule for inputs without a scale is asked for and applies to what a format rounds them to: scale 1,
/// and 1-D inputs as they are.
bool unscaled_as_comfyui(const ProductOptions& options, formats::InputCodes input);

/// Why there is no kernel for these operands, or "".
std::string why_no_product(const at::Tensor& x, const QuantizedTensorImpl& weight);

/// x: float32, bfloat16 or float16, of any rank from 1 (with a bank of experts [E, M, K]); y has its dtype, or `type`.
/// Inputs of a forward product are multiplied by pre_quant_scale and rounded as the format's runtime does
/// (formats::Inputs::runtime), but for full_precision_matrix_mult; dynamic scales are those of rows. `bias` [N].
/// Bounds: formats/matmul.h.
at::Tensor multiply(const at::Tensor& x, const QuantizedTensorImpl& weight, Side side,
                    const std::optional<at::Tensor>& bias = std::nullopt,
                    std::optional<at::ScalarType> type = std::nullopt);

/// The same with a gradient for x (and the bias), which is g W from the stored weight: no float copy of the weight and
/// nothing of x is kept.
at::Tensor multiply_differentiably(const at::Tensor& x, const at::Tensor& weight, Side side,
                                   const std::optional<at::Tensor>& bias = std::nullopt,
                                   std::optional<at::ScalarType> type = std::nullopt);

}  // namespace mezzotint::tensor
