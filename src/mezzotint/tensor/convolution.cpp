#include "mezzotint/tensor/convolution.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/conv_transpose3d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>

#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/product.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::tensor {
namespace {

/// [B, out..., C, kernel...] as a view of the padded input.
at::Tensor patches(const at::Tensor& x, const Geometry& g) {
  std::vector<int64_t> padding;
  for (size_t d = g.rank(); d-- > 0;) padding.insert(padding.end(), 2, g.padding[d]);
  const at::Tensor padded = at::constant_pad_nd(x, padding).contiguous();
  std::vector<int64_t> sizes = {padded.size(0)}, strides = {padded.stride(0)};
  for (size_t d = 0; d < g.rank(); ++d) {
    const auto axis = static_cast<int64_t>(d) + 2;
    const int64_t reach = g.dilation[d] * (g.kernel[d] - 1) + 1;
    TORCH_CHECK(padded.size(axis) >= reach, "a kernel of ", reach, " positions does not fit an input of ",
                padded.size(axis));
    sizes.push_back((padded.size(axis) - reach) / g.stride[d] + 1);
    strides.push_back(padded.stride(axis) * g.stride[d]);
  }
  sizes.push_back(padded.size(1));
  strides.push_back(padded.stride(1));
  for (size_t d = 0; d < g.rank(); ++d) {
    sizes.push_back(g.kernel[d]);
    strides.push_back(padded.stride(static_cast<int64_t>(d) + 2) * g.dilation[d]);
  }
  return padded.as_strided(sizes, strides);
}

/// Calls f(part of a, part of b) for parts of at most `limit` positions, which are the first `dims` dimensions of both.
void in_parts(const at::Tensor& a, const at::Tensor& b, int64_t dim, int64_t dims, int64_t limit,
              const std::function<void(const at::Tensor&, const at::Tensor&)>& f) {
  int64_t inner = 1;
  for (int64_t d = dim + 1; d < dims; ++d) inner *= a.size(d);
  const int64_t step = std::max<int64_t>(1, limit / std::max<int64_t>(inner, 1));
  for (int64_t i = 0; i < a.size(dim); i += step) {
    const int64_t count = std::min(step, a.size(dim) - i);
    const at::Tensor part = a.narrow(dim, i, count), of_b = b.narrow(dim, i, count);
    if (count * inner > limit && dim + 1 < dims)
      in_parts(part, of_b, dim + 1, dims, limit, f);
    else
      f(part, of_b);
  }
}

at::Tensor by_patches(const at::Tensor& x, const QuantizedTensorImpl& weight, const std::optional<at::Tensor>& bias,
                      const Geometry& g) {
  const at::Tensor view = patches(x, g);
  const auto positions = static_cast<int64_t>(g.rank()) + 1;
  const int64_t columns = weight.stored()->layout.cols, row_bytes = columns * static_cast<int64_t>(x.element_size());
  std::vector<int64_t> shape = view.sizes().slice(0, static_cast<size_t>(positions)).vec();
  shape.push_back(weight.stored()->layout.rows);
  const at::Tensor y = at::empty(shape, x.options());
  if (y.numel() > 0)
    in_parts(view, y, 0, positions, std::max<int64_t>(1, kPatchBytes / std::max<int64_t>(row_bytes, 1)),
             [&](const at::Tensor& part, const at::Tensor& of_y) {
               of_y.view({-1, shape.back()}).copy_(multiply(part.reshape({-1, columns}), weight, Side::forward, bias));
             });
  return y.movedim(-1, 1).contiguous();
}

/// The weight as a plain convolution multiplies it.
at::Tensor values_of(const QuantizedTensorImpl& weight, at::ScalarType type) {
  const at::Tensor values = dequantize(*weight.stored(), type), &factors = weight.product()->pre_quant_scale;
  if (!factors.defined()) return values;
  return at::mul(values.flatten(1), factors.to(values.device(), type)).view(values.sizes());
}

at::Tensor by_values(const at::Tensor& x, const QuantizedTensorImpl& weight, const std::optional<at::Tensor>& bias,
                     const Geometry& g) {
  if (kernels_are_watched())
    tell_kernel("decoded weight, libtorch's convolution", "products of patches would be slower");
  const at::Tensor values = values_of(weight, x.scalar_type());
  std::optional<at::Tensor> term;
  if (bias && bias->defined()) term = bias->detach().to(x.scalar_type());
  return g.rank() == 2 ? at::conv2d(x, values, term, g.stride, g.padding, g.dilation)
                       : at::conv3d(x, values, term, g.stride, g.padding, g.dilation);
}

class Convolution : public torch::autograd::Function<Convolution> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const Geometry& g, ConvolutionPath path) {
    context->saved_data["weight"] = weight.detach();
    context->saved_data["stride"] = g.stride;
    context->saved_data["padding"] = g.padding;
    context->saved_data["dilation"] = g.dilation;
    context->saved_data["sizes"] = x.sizes().vec();
    context->saved_data["bias"] = bias.has_value();
    return path == ConvolutionPath::patches ? by_patches(x, quantized(weight), bias, g)
                                            : by_values(x, quantized(weight), bias, g);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor& g = gradients[0];
    at::Tensor of_x, of_bias;
    if (context->needs_input_grad(0)) {
      const QuantizedTensorImpl& weight = quantized(context->saved_data["weight"].toTensor());
      const auto list = [&](const char* name) { return context->saved_data[name].toIntVector(); };
      const std::vector<int64_t> stride = list("stride"), padding = list("padding"), dilation = list("dilation"),
                                 sizes = list("sizes");
      const at::Tensor values = values_of(weight, g.scalar_type());
      std::vector<int64_t> rest;  // rows of x that no patch reached
      for (size_t d = 0; d < stride.size(); ++d)
        rest.push_back(sizes[d + 2] + 2 * padding[d] - dilation[d] * (values.size(static_cast<int64_t>(d) + 2) - 1) -
                       1 - (g.size(static_cast<int64_t>(d) + 2) - 1) * stride[d]);
      of_x = stride.size() == 2 ? at::conv_transpose2d(g, values, {}, stride, padding, rest, 1, dilation)
                                : at::conv_transpose3d(g, values, {}, stride, padding, rest, 1, dilation);
    }
    // A bias that is not there has no place among the inputs.
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2))
      of_bias = g.transpose(0, 1).flatten(1).sum(1);
    return {of_x, at::Tensor(), of_bias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

// Gathering patches costs more than libtorch's convolution where there are many positions, decoding the weight more
// than the product where there are few. With float32, libtorch is slow enough for long patches to win anyway.
ConvolutionPath faster_convolution(const at::Tensor& x, const at::Tensor& weight, const Geometry& geometry) {
  constexpr int64_t kChannelsPerPosition = 5, kLongPatch = 4096;
  int64_t positions = x.size(0);
  for (size_t d = 0; d < geometry.rank(); ++d) {
    const int64_t reach = geometry.dilation[d] * (geometry.kernel[d] - 1) + 1;
    const int64_t room = x.size(static_cast<int64_t>(d) + 2) + 2 * geometry.padding[d] - reach;
    positions *= room < 0 ? 0 : room / geometry.stride[d] + 1;
  }
  const int64_t channels = weight.size(0);
  const bool few = positions * kChannelsPerPosition <= channels;
  const bool slow_otherwise = x.scalar_type() == at::kFloat && weight.numel() >= kLongPatch * channels;
  return few || slow_otherwise ? ConvolutionPath::patches : ConvolutionPath::dequantize;
}

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                    const Geometry& geometry, ConvolutionPath path) {
  return Convolution::apply(x, weight, bias, geometry, path);
}

}  // namespace mezzotint::tensor
