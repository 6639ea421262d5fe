#pragma once
#include "mezzotint/tensor/cuda/choose_product.h"

/// Products of weights that lie on a GPU. All but kernel/cuda is operations of ATen, which compute the same on the CPU:
/// there they are tested.
///
/// Bounds, with e = 2^-24, R the length of the reduction and S = sum |x~ w~| over the operands as they are multiplied
/// (x rounded as the format's runtime does, the weight decoded): integer sums are exact, their conversion and three
/// factors and the bias round once each; at::_scaled_mm and at::linear add in float32 (Hopper's tensor cores are
/// reported to keep about 14 bits of sums of fp8: DeepSeek-V3, section 3.3.2). Then the result is rounded to its dtype.
namespace mezzotint::tensor::cuda {

/// Rows of one expert: x [M, K] -> [M, N], or g [M, N] -> [M, K]. `bias` [N] of any float dtype, or undefined. x and
/// the weight lie on one device, any for which the operations of `choice` exist. The result has dtype `type`.
at::Tensor multiply_rows(const at::Tensor& x, const StoredWeight& weight, int64_t expert, Side side,
                         const ProductOptions& options, const at::Tensor& bias, at::ScalarType type, Product product,
                         const Gpu& gpu = {});

/// y [experts * M, ...] of x [experts * M, ...], by what choose_product says for the GPU that they lie on, which
/// dispatch.h is told. `rank` is that of the caller's x.
void multiply_into(at::Tensor& y, const at::Tensor& x, const StoredWeight& weight, Side side,
                   const ProductOptions& options, const at::Tensor& bias, int64_t rank);

/// Values of the weight on its device, [experts * N, K].
at::Tensor decode_all(const StoredWeight& weight, at::ScalarType type);

}  // namespace mezzotint::tensor::cuda
