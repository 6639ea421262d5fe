#pragma once
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "formats/variants.h"
#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/formats/matmul.h"
#include "mezzotint/kernel/gemm/quantize_rows.h"
#include "mezzotint/kernel/hadamard.h"
#include "tensor/tensor_case.h"

/// What a product multiplies, as numbers: the input as it was quantized and the weight as it is stored, both decoded to
/// float64 without any rounding that the product does not do. From these follow the exact result and the bounds of
/// kernel/gemm on it.
namespace mezzotint::test {

using formats::InputCodes;
using tensor::StoredWeight;

inline constexpr double kEps = 0x1p-24;

/// Every setting of every format that can be written, as labels for from_float.
inline std::vector<std::string> stored_layouts() {
  std::vector<std::string> labels;
  for (const formats::Format* format : formats::all_formats())
    if (format->quantized && format->writable)
      for (const formats::Options& options : formats::option_variants(*format))
        labels.push_back(formats::Selection{format, options}.label());
  return labels;
}

/// A float weight in a shape that the layout takes; the same numbers for all.
inline at::Tensor weight_for(const std::string& label) {
  const formats::Selection selection = formats::select_format(label);
  for (const Shape& shape : {Shape{256, 512}, Shape{252, 504}})
    if (selection.format->describe({.shape = shape}, selection.options).layout)
      return some_weight(shape[0], shape[1], at::kFloat);
  TORCH_CHECK(false, "no shape for ", label);
}

inline at::Tensor with_options(const at::Tensor& q, tensor::ProductOptions options) {
  const auto& weight = tensor::quantized(q);
  return make_tensor(weight.stored(), q.scalar_type(), weight.transposed(),
                     std::make_shared<const tensor::ProductOptions>(std::move(options)));
}

inline at::Tensor full_precision(const at::Tensor& q) {
  return with_options(q, {.full_precision_matrix_mult = true});
}

/// The same codes under a stored scale that is a quarter too large; twice as large where it is a power of two.
inline at::Tensor with_broken_scale(const at::Tensor& q) {
  StoredWeight broken = clone(*tensor::quantized(q).stored());
  const auto& tensors = broken.layout.tensors;
  size_t scale = 0;
  for (size_t i = 1; i < tensors.size(); ++i)
    if (tensors[i].suffix.find("scale") != std::string::npos || tensors[i].suffix.find("_s_") != std::string::npos)
      scale = i;
  TORCH_CHECK(scale > 0, "a scale is wanted");
  at::Tensor& values = broken.tensors[scale];
  if (values.scalar_type() == at::kByte)
    values += 1;
  else
    values.copy_(values.to(at::kFloat) * 1.25);
  return make_tensor(std::make_shared<const StoredWeight>(std::move(broken)), q.scalar_type(),
                     tensor::quantized(q).transposed(), tensor::quantized(q).product());
}

/// An operand as kernel/gemm reads it, element by element.
inline at::Tensor decoded(const kernel::Operand& m) {
  at::Tensor values = at::empty({m.rows, m.cols}, at::kDouble);
  auto* out = values.mutable_data_ptr<double>();
  const auto* bytes = static_cast<const uint8_t*>(m.data);
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) {
      const uint8_t byte = bytes[r * m.stride + (bits(m.code) == 4 ? c / 2 : c)];
      double value = 0;
      switch (m.code) {
        case kernel::ElementCode::e4m3:
          value = static_cast<double>(E4m3::decode(byte));
          break;
        case kernel::ElementCode::e5m2:
          value = static_cast<double>(E5m2::decode(byte));
          break;
        case kernel::ElementCode::int8:
          value = static_cast<int8_t>(byte);
          break;
        case kernel::ElementCode::int4:
          value = static_cast<int8_t>(c % 2 == 0 ? byte << 4 : byte & 0xF0) / 16;
          break;
        case kernel::ElementCode::e2m1:
          value = static_cast<double>(E2m1::decode(c % 2 == 0 ? byte >> 4 : byte & 15));
          break;
        default:
          TORCH_CHECK(false, "no code");
      }
      if (m.scales.code != kernel::ScaleCode::none) {
        const uint8_t scale = static_cast<const uint8_t*>(
            m.scales.data)[r / m.scales.block_rows * m.scales.stride + c / m.scales.block_cols];
        value *= m.scales.code == kernel::ScaleCode::e4m3 ? static_cast<double>(E4m3::decode(scale))
                 : scale == 0                             ? 0.0
                                                          : std::ldexp(1.0, scale - 127);
      }
      *out++ = value;
    }
  return values;
}

struct Operands {
  at::Tensor x, w;       ///< [M, K], [N, K] float64, in one basis
  at::Tensor x_before;   ///< x before it was rounded to codes, in that basis
  bool rotates = false;  ///< the product rotates on its own: its error depends on whole rows
};

/// The rows of x as codes times scales.
inline at::Tensor rounded_rows(const at::Tensor& x, InputCodes kind, int64_t rotation, kernel::FloatScaling scaling) {
  const at::Tensor rows = x.contiguous();
  const int64_t m = x.size(0), k = x.size(1);
  const kernel::Source source{rows.const_data_ptr(), tensor::dtype_of(x.scalar_type()), m, k, k};
  if (formats::is_integer(kind)) {
    const bool blocks = kind == InputCodes::int8_blocks,
               given = scaling.of == kernel::FloatScaling::Of::given && !blocks;
    const int64_t count = blocks ? (k + 127) / 128 : 1;
    at::Tensor codes = at::empty({m, k}, at::kChar), scales = at::empty({m, count});
    kernel::Int8Quantization how{.scaling = blocks ? kernel::Int8Scaling::block : kernel::Int8Scaling::row,
                                 .rotation = rotation};
    if (given) how.given_scale = &scaling.scale;
    if (kind == InputCodes::int4) how.range = kernel::IntegerRange::int4();
    std::vector<std::byte> scratch(kernel::quantize_int8_scratch_bytes(m, k, 1));
    kernel::quantize_int8(source, how, {codes.mutable_data_ptr<int8_t>(), k, scales.mutable_data_ptr<float>(), count},
                          scratch, 1);
    if (given) return codes.to(at::kDouble) * static_cast<double>(scaling.scale);
    return codes.to(at::kDouble) * scales.to(at::kDouble).repeat_interleave(blocks ? 128 : k, 1).slice(1, 0, k);
  }
  at::Tensor turned = rows;
  if (rotation > 0) {
    turned = rows.to(at::kFloat, false, true);
    kernel::rotate_convrot(turned.mutable_data_ptr<float>(), m * k, rotation);
  }
  std::vector<std::byte> scratch(formats::quantized_input_bytes(kind, m, k) + 64);
  const auto q = formats::quantize_input({turned.const_data_ptr(), tensor::dtype_of(turned.scalar_type()), m, k, k},
                                         kind, scaling, scratch, 1);
  at::Tensor values = decoded(q.codes);
  if (q.row_scale != nullptr)
    for (int64_t r = 0; r < m; ++r) values[r] *= static_cast<double>(q.row_scale[r]);
  return values;
}

/// The weight of one expert as its codes say, without the inverse transform.
inline at::Tensor stored_values(const StoredWeight& weight, int64_t expert) {
  const formats::Layout& layout = weight.layout;
  const formats::Parameters parameters = weight.parameters();
  at::Tensor values = at::empty({layout.rows, layout.cols});
  const int64_t row0 = expert * layout.rows;
  layout.format->decode(layout, parameters, row0, layout.rows, 0, layout.cols,
                        parameters.tensors[0].data() + layout.stored_row(row0) * layout.row_bytes,
                        values.mutable_data_ptr<float>(), layout.cols);
  return values.to(at::kDouble);
}

/// x [M, K] is the input of a forward product with the stored weight [N, K].
inline Operands operands(const at::Tensor& input, const at::Tensor& q, int64_t expert = 0) {
  const auto& weight = tensor::quantized(q);
  const tensor::ProductOptions& options = *weight.product();
  const formats::Layout& layout = weight.stored()->layout;
  at::Tensor x = input.detach();
  if (options.pre_quant_scale.defined()) x = x * options.pre_quant_scale.to(x.scalar_type());
  formats::MatmulForm form;
  const formats::Parameters parameters = weight.stored()->parameters();
  if (layout.format->matmul_form) form = layout.format->matmul_form(layout, parameters, expert);
  InputCodes kind = options.full_precision_matrix_mult ? InputCodes::none : form.input;
  if (kind == InputCodes::none) {
    at::Tensor values = dequantize(*weight.stored(), at::kFloat).reshape({layout.experts, layout.rows, layout.cols});
    return {x.to(at::kDouble), values[expert].to(at::kDouble), x.to(at::kDouble), layout.transformed};
  }
  kernel::FloatScaling scaling;
  if (options.input_scale) scaling = {.of = kernel::FloatScaling::Of::given, .scale = *options.input_scale};
  at::Tensor before = x.to(at::kFloat, false, true).contiguous();
  if (form.rotation > 0) kernel::rotate_convrot(before.mutable_data_ptr<float>(), before.numel(), form.rotation);
  return {rounded_rows(x, kind, form.rotation, scaling), stored_values(*weight.stored(), expert),
          before.to(at::kDouble)};
}

/// A result and how far the sums of its computation may be from it.
struct Exact {
  at::Tensor y, bound;
};

inline Exact product(const at::Tensor& x, const at::Tensor& w_t, bool rotates) {
  at::Tensor magnitude = x.abs().matmul(w_t.abs());
  if (rotates && magnitude.numel() > 0) magnitude = at::full_like(magnitude, 4 * magnitude.max().item<double>());
  return {x.matmul(w_t), magnitude * (kEps * static_cast<double>(x.size(-1) + 16)) + 1e-30};
}
inline Exact product(const Operands& o) {
  return product(o.x, o.w.t(), o.rotates);
}

/// Half a unit in the last place of a result, as a part of it.
inline double rounding_of(at::ScalarType type) {
  return type == at::kFloat ? kEps : type == at::kHalf ? 0x1p-11 : 0x1p-8;
}

/// The largest |y - exact| over its bound, with y rounded to its dtype at the end.
inline double worst(const at::Tensor& y, const Exact& exact) {
  if (y.numel() == 0) return 0;
  const at::Tensor bound =
      exact.bound + exact.y.abs() * rounding_of(y.scalar_type()) + (y.scalar_type() == at::kHalf ? 0x1p-25 : 0.0);
  return ((y.detach().to(at::kDouble) - exact.y).abs() / bound).max().item<double>();
}

/// What the format's row says about the weight's relative error: rounding errors are spread evenly between the bounds.
inline double figure_of_weight(const at::Tensor& q, const at::Tensor& source) {
  const StoredWeight& weight = *tensor::quantized(q).stored();
  const formats::Layout& layout = weight.layout;
  at::Tensor values = source.to(at::kFloat, false, true).reshape({layout.total_rows(), layout.cols}).contiguous();
  if (layout.transformed) layout.format->transform(layout, values.mutable_data_ptr<float>(), values.size(0), false);
  at::Tensor bound = at::empty_like(values);
  layout.format->error_bound(layout, weight.parameters(),
                             {.data = values.const_data_ptr(),
                              .dtype = DType::f32,
                              .rows = values.size(0),
                              .cols = layout.cols,
                              .row_stride = layout.cols},
                             bound.mutable_data_ptr<float>());
  return (bound.norm() / values.norm()).item<double>() / std::sqrt(3.0);
}

}  // namespace mezzotint::test
