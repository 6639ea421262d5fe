#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/tensor/stored_weight.h"

/// Tensors of files as tensors of libtorch (room-internal).
namespace mezzotint::nn {

/// A tensor as it is stored. With `map` it is a view of the mapped file, which lives as long as it (io::Source::map),
/// where its place in the file suits its dtype; else a copy.
at::Tensor read_tensor(const checkpoint::Model& file, size_t index, bool map = false);

/// The codes and parameters of a consistent layer, in today's dtypes and shapes.
tensor::StoredWeight read_layer(const checkpoint::Model& file, const checkpoint::Layer& layer, bool map = false);

/// What multiplies a layer's inputs; undefined where it is not smoothed.
at::Tensor read_pre_quant_scale(const checkpoint::Model& file, const checkpoint::Layer& layer);
std::optional<float> read_input_scale(const checkpoint::Model& file, const checkpoint::Layer& layer);

/// Whether two dense tensors have one dtype and the same bytes.
bool same_bytes(const at::Tensor& a, const at::Tensor& b);

}  // namespace mezzotint::nn
