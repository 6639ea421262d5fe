#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/tensor/stored_weight.h"

/// Layers of files as tensors of libtorch (room-internal).
namespace mezzotint::nn {

/// The codes and parameters of a consistent layer, in today's dtypes and shapes; `map` as for tensor::read_tensor.
tensor::StoredWeight read_layer(const checkpoint::Model& file, const checkpoint::Layer& layer, bool map = false);

/// What multiplies a layer's inputs; undefined where it is not smoothed.
at::Tensor read_pre_quant_scale(const checkpoint::Model& file, const checkpoint::Layer& layer);
std::optional<float> read_input_scale(const checkpoint::Model& file, const checkpoint::Layer& layer);

/// Whether two dense tensors have one dtype and the same bytes.
bool same_bytes(const at::Tensor& a, const at::Tensor& b);

}  // namespace mezzotint::nn
