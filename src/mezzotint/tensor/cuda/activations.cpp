#include "mezzotint/tensor/cuda/activations.h"

#include <ATen/ops/bitwise_or.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/signbit.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <limits>

#include "mezzotint/base/round_up.h"
#include "mezzotint/tensor/cuda/operand.h"

namespace mezzotint::tensor::cuda {
namespace {

/// Largest finite magnitude along the last dimension, which stays with size 1. inf and NaN count as the smallest
/// number, so that what holds nothing else is not taken for zeros.
at::Tensor row_amax(const at::Tensor& values) {
  constexpr double kTiny = std::numeric_limits<float>::denorm_min();
  return values.abs().nan_to_num_(kTiny, kTiny, kTiny).amax(-1, true);
}

at::Tensor row_scales(const at::Tensor& values, std::optional<float> given, float largest, float smallest) {
  if (given) return at::full({1, 1}, *given, values.options());
  return row_amax(values).div_(largest).clamp_min_(smallest);
}

at::Tensor to_int8(at::Tensor quotients, int lowest, int highest) {
  return quotients.nan_to_num_(0).round_().clamp_(lowest, highest).to(at::kChar);
}

/// values [M, K] -> [M, blocks, size], zeros behind the end.
at::Tensor in_blocks(const at::Tensor& values, int64_t size) {
  const int64_t cols = values.size(1), blocks = divide_up(cols, size);
  return at::constant_pad_nd(values, {0, blocks * size - cols}).view({values.size(0), blocks, size});
}

/// E2M1 codes without the sign, 0 ... 7; ties to the even code. bucketize counts the bounds below a value, so bounds
/// that belong to the upper code are the numbers just below them.
at::Tensor e2m1_magnitudes(const at::Tensor& magnitudes) {
  const auto below = [](float bound) { return std::nextafter(bound, 0.0f); };
  const at::Tensor bounds =
      at::tensor({0.25f, below(0.75f), 1.25f, below(1.75f), 2.5f, below(3.5f), 5.0f}, magnitudes.options());
  return at::bucketize(magnitudes, bounds, true).to(at::kByte);
}

}  // namespace

Activations quantize_int8(const at::Tensor& x, std::optional<float> given) {
  const at::Tensor values = x.to(at::kFloat), scales = row_scales(values, given, 127, 1e-30f);
  return {to_int8(values.div(scales), given ? -128 : -127, 127), scales, {}};
}

Activations quantize_int4(const at::Tensor& x, std::optional<float> given) {
  const at::Tensor values = x.to(at::kFloat), scales = row_scales(values, given, 7, 0x1p-126f);
  return {to_int8(values.div(scales), -7, 7), scales, {}};
}

Activations quantize_int8_blocks(const at::Tensor& x) {
  const at::Tensor blocks = in_blocks(x.to(at::kFloat), 128), scales = row_scales(blocks, {}, 127, 1e-30f);
  const at::Tensor codes = to_int8(blocks.div(scales), -127, 127).flatten(1).narrow(1, 0, x.size(1));
  return {codes.contiguous(), {}, scales.squeeze(2)};
}

Activations quantize_e4m3(const at::Tensor& x, std::optional<float> given) {
  const at::Tensor values = x.to(at::kFloat), scales = row_scales(values, given, 448, 0x1p-126f);
  return {values.mul(scales.reciprocal()).clamp_(-448, 448).to(at::kFloat8_e4m3fn), scales, {}};
}

Activations quantize_mx(const at::Tensor& x) {
  const at::Tensor blocks = in_blocks(x.to(at::kFloat), 32), top = row_amax(blocks);
  // The power of two not below amax / 448: its exponent, raised where the mantissa is not zero.
  const at::Tensor bits = top.div(448).view(at::kInt);
  const at::Tensor exponents = at::where(top.eq(0), 0, bits.add(0x7FFFFF).bitwise_right_shift(23).clamp(1, 254));
  const at::Tensor scales = exponents.bitwise_left_shift(23).view(at::kFloat);
  const at::Tensor codes = at::where(top.eq(0), 0.0f, blocks.div(scales)).clamp_(-448, 448);
  return {codes.flatten(1).to(at::kFloat8_e4m3fn), {}, swizzled(exponents.squeeze(2).to(at::kByte))};
}

Activations quantize_fp4(const at::Tensor& x, std::optional<float> given) {
  const at::Tensor values = x.to(at::kFloat), of_rows = row_scales(values, given, 2688, 0x1p-110f);
  const at::Tensor blocks = in_blocks(values, 16), of_row = of_rows.unsqueeze(2);
  const at::Tensor scales = row_amax(blocks).div_(6).div(of_row).clamp_max_(448).to(at::kFloat8_e4m3fn);
  const at::Tensor factors = of_row.mul(scales.to(at::kFloat));
  const at::Tensor quotients = at::where(factors.eq(0), 0.0f, blocks.div(factors)).flatten(1);
  const at::Tensor codes =
      at::bitwise_or(e2m1_magnitudes(quotients.abs().nan_to_num_(6)), at::signbit(quotients).to(at::kByte).mul_(8))
          .view({x.size(0), -1, 2});
  const at::Tensor packed = at::bitwise_or(codes.select(2, 0).bitwise_left_shift(4), codes.select(2, 1));
  return {packed.contiguous(), of_rows, swizzled(scales.squeeze(2).view(at::kByte))};
}

}  // namespace mezzotint::tensor::cuda
