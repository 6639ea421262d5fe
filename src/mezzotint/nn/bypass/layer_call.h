#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// How a layer computes, for those who compute something beside it (room-internal).
namespace mezzotint::nn {

/// A linear layer, or a convolution with all that its operation is given. Padding modes other than zeros are none of
/// it: modules pad the input first, so what arrives here is padded.
struct LayerCall {
  std::vector<int64_t> kernel;  ///< sizes of it; empty = a linear layer
  std::vector<int64_t> stride, padding, dilation;
  std::string padding_name;  ///< "same" or "valid"; `padding` is empty then
  int64_t groups = 1;
  at::ScalarType type = at::kFloat;  ///< that factors are cast to
  at::Device device = at::kCPU;

  bool linear() const { return kernel.empty(); }
  /// Where channels are in outputs.
  int64_t channels() const { return linear() ? -1 : 1; }
  at::Tensor cast(const at::Tensor& factor) const;

  /// The operation with another weight [O, I / groups, *kernel]; x is [..., I] or [B, I, ...].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& weight,
                        const std::optional<at::Tensor>& bias = std::nullopt) const;
  /// matrix [r, I / groups * kernel] as its weight. With groups, each has its own r outputs: [B, groups * r, ...].
  at::Tensor down(const at::Tensor& x, const at::Tensor& matrix) const;
  /// matrix [O, r] on what down() gives.
  at::Tensor up(const at::Tensor& hidden, const at::Tensor& matrix) const;
  /// matrix [J, I / groups] on the channels of every group at every position: [..., groups * J].
  at::Tensor pointwise(const at::Tensor& x, const at::Tensor& matrix) const;
};

/// Which rows of a weight an adapter is for, and so which outputs of the layer.
struct RowMap {
  int64_t row0 = 0, rows = 0, total = 0;
  bool swap_halves = false;  ///< the adapter's first half is the layer's second

  bool whole() const { return rows == total && !swap_halves; }
  /// The rows along a dimension, in the adapter's order.
  at::Tensor take(const at::Tensor& all, int64_t dim) const;
  /// `all` with others in their place.
  at::Tensor put(const at::Tensor& all, const at::Tensor& part, int64_t dim) const;
};

}  // namespace mezzotint::nn
