#include "mezzotint/nn/bypass/layer_call.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv1d.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/roll.h>

namespace mezzotint::nn {
namespace {

at::Tensor convolve_by(const LayerCall& call, const at::Tensor& x, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, int64_t groups) {
  const auto with = [&](auto&& convolution) {
    return call.padding_name.empty()
               ? convolution(x, weight, bias, call.stride, at::IntArrayRef(call.padding), call.dilation, groups)
               : convolution(x, weight, bias, call.stride, std::string_view(call.padding_name), call.dilation, groups);
  };
  switch (call.kernel.size()) {
    case 1:
      return with([](const auto&... arguments) { return at::conv1d(arguments...); });
    case 2:
      return with([](const auto&... arguments) { return at::conv2d(arguments...); });
    default:
      return with([](const auto&... arguments) { return at::conv3d(arguments...); });
  }
}

/// The same positions: a kernel of one.
LayerCall at_every_position(const LayerCall& call) {
  const std::vector<int64_t> ones(call.kernel.size(), 1), zeros(call.kernel.size(), 0);
  return {.kernel = ones, .stride = ones, .padding = zeros, .dilation = ones};
}

at::Tensor as_kernel(const at::Tensor& matrix, const std::vector<int64_t>& kernel) {
  std::vector<int64_t> shape = {matrix.size(0), matrix.size(1) / c10::multiply_integers(kernel)};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  return matrix.reshape(shape);
}

/// [B, groups * C, ...] <-> [B * groups, C, ...]
at::Tensor regroup(const at::Tensor& images, int64_t batch, int64_t channels) {
  std::vector<int64_t> shape = {batch, channels};
  shape.insert(shape.end(), images.sizes().begin() + 2, images.sizes().end());
  return images.reshape(shape);
}

/// With a weight that all groups share.
at::Tensor convolve_each_group(const LayerCall& call, int64_t groups, const at::Tensor& x, const at::Tensor& weight) {
  if (groups == 1) return convolve_by(call, x, weight, std::nullopt, 1);
  const int64_t batch = x.size(0);
  const at::Tensor y = convolve_by(call, regroup(x, batch * groups, x.size(1) / groups), weight, std::nullopt, 1);
  return regroup(y, batch, groups * weight.size(0));
}

}  // namespace

at::Tensor LayerCall::cast(const at::Tensor& factor) const {
  return factor.to(device, type);
}

at::Tensor LayerCall::operator()(const at::Tensor& x, const at::Tensor& weight,
                                 const std::optional<at::Tensor>& bias) const {
  return linear() ? at::linear(x, weight, bias) : convolve_by(*this, x, weight, bias, groups);
}

at::Tensor LayerCall::down(const at::Tensor& x, const at::Tensor& matrix) const {
  return linear() ? at::linear(x, matrix) : convolve_each_group(*this, groups, x, as_kernel(matrix, kernel));
}

at::Tensor LayerCall::up(const at::Tensor& hidden, const at::Tensor& matrix) const {
  if (linear()) return at::linear(hidden, matrix);
  const LayerCall points = at_every_position(*this);
  return convolve_by(points, hidden, as_kernel(matrix, points.kernel), std::nullopt, groups);
}

at::Tensor LayerCall::pointwise(const at::Tensor& x, const at::Tensor& matrix) const {
  if (linear()) return at::linear(x, matrix);
  const LayerCall points = at_every_position(*this);
  return convolve_each_group(points, groups, x, as_kernel(matrix, points.kernel));
}

at::Tensor RowMap::take(const at::Tensor& all, int64_t dim) const {
  if (whole()) return all;
  const at::Tensor part = all.narrow(dim, row0, rows);
  return swap_halves ? at::roll(part, rows / 2, dim) : part;
}

at::Tensor RowMap::put(const at::Tensor& all, const at::Tensor& part, int64_t dim) const {
  if (whole()) return part;
  const int64_t behind = row0 + rows;
  return at::cat({all.narrow(dim, 0, row0), swap_halves ? at::roll(part, rows / 2, dim) : part,
                  all.narrow(dim, behind, total - behind)},
                 dim);
}

}  // namespace mezzotint::nn
