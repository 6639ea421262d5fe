#include "mezzotint/tensor/cuda/product.h"

#include <ATen/ops/_int_mm.h>
#include <ATen/ops/_scaled_mm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "mezzotint/base/round_up.h"
#include "mezzotint/tensor/cuda/activations.h"
#include "mezzotint/tensor/cuda/launch.h"
#include "mezzotint/tensor/cuda/operand.h"
#include "mezzotint/tensor/dispatch.h"

namespace mezzotint::tensor::cuda {
namespace {

constexpr int64_t kWaiting = 1 << 26;  // elements of a result that wait in float32 for their scales
constexpr int64_t kPaddedRows = 32;    // what x is padded to where a product wants more rows, or a multiple

at::Tensor values_of(const StoredWeight& weight, int64_t expert, at::ScalarType type, const Gpu& gpu) {
  if (const std::optional<Operand> operand = operand_of(weight, expert)) {
    if (gpu.kernels)
      if (std::optional<at::Tensor> values = launch::decode(*operand, type)) return *values;
    return decode(*operand, type);
  }
  const formats::Layout& layout = weight.layout;
  const at::Tensor values =
      dequantize(to_device(weight, at::kCPU), type).view({layout.experts, layout.rows, layout.cols});
  return values.select(0, expert).to(weight.device());
}

at::Tensor padded_rows(const at::Tensor& codes, int64_t rows) {
  return rows == codes.size(0) ? codes : at::constant_pad_nd(codes, {0, 0, 0, rows - codes.size(0)});
}

/// The bias, where at::_scaled_mm takes it.
std::optional<at::Tensor> fused(const at::Tensor& bias, at::ScalarType type) {
  const bool sixteen = type == at::kBFloat16 || type == at::kHalf;
  return sixteen && bias.defined() && bias.scalar_type() == type ? std::optional(bias) : std::nullopt;
}

/// Factors of rows and columns, and the bias, on a float32 result.
at::Tensor finished(at::Tensor sums, const at::Tensor& row_scale, const Operand& weight, const at::Tensor& bias,
                    bool weight_scale) {
  if (row_scale.defined()) sums.mul_(row_scale);
  if (weight_scale && weight.scale.defined()) sums.mul_(weight.scale);
  if (weight.row_scale.defined()) sums.mul_(weight.row_scale);
  if (bias.defined()) sums.add_(bias);
  return sums;
}

/// With what ComfyUI does where there is no input_scale, if that is asked for.
ProductOptions with_static_scale(ProductOptions options, formats::InputCodes input, int64_t rank) {
  if (!unscaled_as_comfyui(options, input)) return options;
  options.input_scale = 1;
  options.full_precision_matrix_mult |= rank == 1;
  return options;
}

class Run {
 public:
  Run(const Operand& weight, const ProductOptions& options, const at::Tensor& bias, at::ScalarType type, const Gpu& gpu)
      : weight_(weight), given_(options.input_scale), bias_(bias), type_(type), kernels_(gpu.kernels) {}

  at::Tensor compute(const at::Tensor& x, Product product) const {
    const at::Tensor input = rotated_input(x);
    switch (product) {
      case Product::int8_rows:
        return launch::int8_product(integers(input), weight_, int8_codes(weight_), float_bias(), type_);
      case Product::int8_blocks:
        return launch::int8_product(launch::quantize_int8_blocks(input), weight_, int8_codes(weight_), float_bias(),
                                    type_);
      case Product::scaled_mm_rows:
        return by_rows(input);
      case Product::scaled_mm:
        if (given_ && !weight_.row_scale.defined()) return by_tensor(input);
        break;
      default:
        break;
    }
    return in_slabs(input, product);
  }

 private:
  at::Tensor rotated_input(const at::Tensor& x) const {
    const int64_t group = weight_.form.rotation;
    if (group == 0) return x;
    return kernels_ ? launch::rotated(x, group, at::kFloat) : rotated(x, group);
  }

  at::Tensor float_bias() const { return bias_.defined() ? bias_.to(at::kFloat).contiguous() : bias_; }

  Activations integers(const at::Tensor& x) const {
    if (weight_.form.input == formats::InputCodes::int4) return quantize_int4(x, given_);
    return kernels_ ? launch::quantize_int8(x, given_) : quantize_int8(x, given_);
  }
  Activations e4m3(const at::Tensor& x) const {
    return kernels_ ? launch::quantize_e4m3(x, given_) : quantize_e4m3(x, given_);
  }

  at::Tensor weight_codes() const { return weight_.codes.t(); }
  at::Tensor one() const { return at::ones({1}, weight_.codes.options().dtype(at::kFloat)); }
  /// Aligned as a tensor of its own is: that of an expert may lie anywhere.
  at::Tensor weight_scale() const {
    if (!weight_.scale.defined()) return one();
    return weight_.scale.storage_offset() == 0 ? weight_.scale : weight_.scale.clone();
  }

  at::Tensor with_bias(const at::Tensor& y, bool has_it) const {
    return has_it || !bias_.defined() ? y : y.to(at::kFloat).add_(bias_).to(type_);
  }

  /// One scale for each operand.
  at::Tensor by_tensor(const at::Tensor& x) const {
    const Activations a = e4m3(x);
    const std::optional<at::Tensor> bias = fused(bias_, type_);
    const at::Tensor y =
        at::_scaled_mm(a.codes, weight_codes(), a.row_scale.reshape({1}), weight_scale(), bias, {}, type_);
    return with_bias(y, bias.has_value());
  }

  /// Scales of rows of both.
  at::Tensor by_rows(const at::Tensor& x) const {
    const Activations a = e4m3(x);
    const at::Tensor rows = a.row_scale.expand({x.size(0), 1}).contiguous();
    const at::Tensor scales = weight_.row_scale.defined() ? weight_.row_scale : weight_scale();
    const at::Tensor columns = scales.view({1, -1}).expand({1, weight_.rows}).clone(at::MemoryFormat::Contiguous);
    const std::optional<at::Tensor> bias = fused(bias_, type_);
    return with_bias(at::_scaled_mm(a.codes, weight_codes(), rows, columns, bias, {}, type_), bias.has_value());
  }

  /// Everything whose result needs factors afterwards.
  at::Tensor in_slabs(const at::Tensor& x, Product product) const {
    const int64_t m = x.size(0), n = weight_.rows;
    const int64_t step = std::max<int64_t>(kWaiting / std::max<int64_t>(n, 1) / 128 * 128, 128);
    const at::Tensor codes = product == Product::int_mm ? int8_codes(weight_).t() : at::Tensor();
    if (m <= step) return slab(x, product, codes).to(type_);
    at::Tensor y = at::empty({m, n}, x.options().dtype(type_));
    for (int64_t row0 = 0; row0 < m; row0 += step) {
      const int64_t rows = std::min(step, m - row0);
      y.narrow(0, row0, rows).copy_(slab(x.narrow(0, row0, rows), product, codes));
    }
    return y;
  }

  at::Tensor slab(const at::Tensor& x, Product product, const at::Tensor& int8) const {
    const int64_t m = x.size(0), padded = round_up_to(m, kPaddedRows);
    if (product == Product::int_mm) {
      const Activations a = integers(x);
      const at::Tensor sums = at::_int_mm(padded_rows(a.codes, m <= 16 ? padded : m), int8).narrow(0, 0, m);
      return finished(sums.to(at::kFloat), a.row_scale, weight_, bias_, true);
    }
    if (product == Product::scaled_mm) {
      const Activations a = e4m3(x);
      at::Tensor sums = at::_scaled_mm(a.codes, weight_codes(), one(), weight_scale(), {}, {}, at::kFloat);
      return finished(sums, a.row_scale, weight_, bias_, false);
    }
    const bool mx = product == Product::scaled_mm_mx;
    const at::ScalarType code = mx ? at::kFloat8_e4m3fn : at::kFloat4_e2m1fn_x2;
    const at::ScalarType scale = mx ? at::kFloat8_e8m0fnu : at::kFloat8_e4m3fn;
    const Activations a = !mx ? quantize_fp4(x, given_) : kernels_ ? launch::quantize_mx(x) : quantize_mx(x);
    const at::Tensor rows = padded_rows(a.codes.view(at::kByte), padded).view(code);
    at::Tensor sums = at::_scaled_mm(rows, weight_.codes.view(code).t(), a.block_scales.view(scale),
                                     weight_.scales.view(scale), {}, {}, at::kFloat);
    sums = sums.narrow(0, 0, m).narrow(1, 0, weight_.rows);
    return finished(sums, a.row_scale, weight_, bias_, true);
  }

  const Operand& weight_;
  std::optional<float> given_;
  at::Tensor bias_;
  at::ScalarType type_;
  bool kernels_;
};

}  // namespace

at::Tensor multiply_rows(const at::Tensor& x, const StoredWeight& weight, int64_t expert, Side side,
                         const ProductOptions& options, const at::Tensor& bias, at::ScalarType type, Product product,
                         const Gpu& gpu) {
  if (product != Product::dequantize) {
    const std::optional<Operand> operand = operand_of(weight, expert);
    TORCH_CHECK(operand && side == Side::forward, name(product), " does not multiply these codes");
    return Run(*operand, options, bias, type, gpu).compute(x, product);
  }
  const at::Tensor values = values_of(weight, expert, x.scalar_type(), gpu);
  if (side == Side::backward) return at::mm(x, values).to(type);
  const std::optional<at::Tensor> term = bias.defined() ? std::optional(bias.to(x.scalar_type())) : std::nullopt;
  return at::linear(x, values, term).to(type);
}

void multiply_into(at::Tensor& y, const at::Tensor& x, const StoredWeight& weight, Side side,
                   const ProductOptions& given, const at::Tensor& bias, int64_t rank) {
  const int64_t experts = weight.layout.experts, rows = x.size(0) / experts;
  const Gpu gpu = gpu_of(x.device());
  for (int64_t expert = 0; expert < experts; ++expert) {
    const std::optional<Operand> operand = operand_of(weight, expert);
    const ProductOptions options = operand ? with_static_scale(given, operand->form.input, rank) : given;
    const Call call{rows, weight.layout.rows, weight.layout.cols, y.scalar_type(), side};
    const Choice choice = operand ? choose_product(operand->form, call, options, gpu)
                                  : Choice{Product::dequantize, "codes of this kind are decoded on the CPU"};
    y.narrow(0, expert * rows, rows)
        .copy_(multiply_rows(x.narrow(0, expert * rows, rows), weight, expert, side, options, bias, y.scalar_type(),
                             choice.product, gpu));
    if (expert == 0 && kernels_are_watched()) tell_kernel(std::string(name(choice.product)), choice.why_not_faster);
  }
}

at::Tensor decode_all(const StoredWeight& weight, at::ScalarType type) {
  const formats::Layout& layout = weight.layout;
  const Gpu gpu = gpu_of(weight.device());
  if (layout.experts == 1) return values_of(weight, 0, type, gpu);
  at::Tensor values = at::empty({layout.experts * layout.rows, layout.cols}, weight.tensors[0].options().dtype(type));
  for (int64_t expert = 0; expert < layout.experts; ++expert)
    values.narrow(0, expert * layout.rows, layout.rows).copy_(values_of(weight, expert, type, gpu));
  return values;
}

}  // namespace mezzotint::tensor::cuda
