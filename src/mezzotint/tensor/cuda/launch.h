#pragma once
#include "mezzotint/tensor/cuda/activations.h"
#include "mezzotint/tensor/cuda/gpu.h"
#include "mezzotint/tensor/cuda/operand.h"

/// Our own kernels (kernel/cuda) on tensors of a GPU, on libtorch's current stream. What they compute is what the ATen
/// versions of operand.h and activations.h compute, in fewer passes. No GPU has run them; tests do, with the emulator
/// of tests/cuda in its place (tests/tensor/emulated). They throw Error "cuda-not-built" where Gpu::kernels is false.
namespace mezzotint::tensor::cuda::launch {

/// decode() of operand.h; nothing where there is no kernel for such codes.
std::optional<at::Tensor> decode(const Operand& operand, at::ScalarType type);

at::Tensor rotated(const at::Tensor& x, int64_t group, at::ScalarType type);

Activations quantize_int8(const at::Tensor& x, std::optional<float> given);
Activations quantize_int8_blocks(const at::Tensor& x);
Activations quantize_e4m3(const at::Tensor& x, std::optional<float> given);
Activations quantize_mx(const at::Tensor& x);

/// y[M, N] of `type` from int8 codes: scales of rows of both (or one of all), or block scales of both. `codes` of the
/// weight [N, K]; `bias` [N] float32, or undefined.
at::Tensor int8_product(const Activations& x, const Operand& weight, const at::Tensor& codes, const at::Tensor& bias,
                        at::ScalarType type);

}  // namespace mezzotint::tensor::cuda::launch
