#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

/// Convolutions with a stored weight, in two ways; ops_convolution.cpp takes the better one.
namespace mezzotint::tensor {

struct Geometry {
  std::vector<int64_t> kernel, stride, padding, dilation;
  size_t rank() const { return kernel.size(); }
};

enum class ConvolutionPath : uint8_t {
  /// Every output position's patch is a row of a product with the codes (im2col); inputs are rounded as in a linear
  /// layer, patch by patch. No more than kPatchBytes of patches exist at a time.
  patches,
  /// The weight is decoded to the input's dtype, and libtorch convolves: inputs are not rounded.
  dequantize,
};

inline constexpr int64_t kPatchBytes = int64_t{16} << 20;

/// The faster way on this machine's measurements (docs/runtime.md).
ConvolutionPath faster_convolution(const at::Tensor& x, const at::Tensor& weight, const Geometry& geometry);

/// x [B, C, size...], a quantized weight [O, C, kernel...]; y [B, O, size...] in the dtype of x. Differentiable in x
/// and the bias: the gradient of x is the transposed convolution with the weight, decoded for as long as that takes.
at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                    const Geometry& geometry, ConvolutionPath path);

}  // namespace mezzotint::tensor
