#include "mezzotint/tensor/cuda/launch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include "mezzotint/base/round_up.h"
#include "mezzotint/kernel/cuda/codec.h"
#include "mezzotint/kernel/cuda/gemm_int8.h"
#include "mezzotint/kernel/cuda/groups.h"
#include "mezzotint/kernel/cuda/rotate.h"

namespace mezzotint::tensor::cuda::launch {
namespace {

using kernel::ElementCode;
using kernel::Scales;
using kernel::Source;

Source source_of(const at::Tensor& x) {
  return {x.const_data_ptr(), dtype_of(x.scalar_type()), x.size(0), x.size(1), x.stride(0)};
}

const float* floats(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

const uint8_t* bytes(const at::Tensor& tensor) {
  return static_cast<const uint8_t*>(tensor.const_data_ptr());
}

/// Scales of a weight whose scales are float32; data null where they are not.
Scales float_scales(const Operand& operand) {
  const kernel::BlockScales& s = operand.form.codes.scales;
  if (operand.row_scale.defined()) return Scales::per_row(floats(operand.row_scale));
  if (operand.scale.defined() && s.code == kernel::ScaleCode::none) return Scales::scalar(floats(operand.scale));
  if (s.code != kernel::ScaleCode::f32 || operand.scale.defined()) return {};
  return Scales::blocks(floats(operand.scales), s.stride, s.block_rows, s.block_cols);
}

/// Whether the codes were decoded into `out`, before any rotation.
bool decode_into(const Operand& operand, at::Tensor& out, kernel::cuda::Stream stream) {
  const formats::GridCodes& grid = operand.form.grid_codes;
  const int64_t n = operand.rows, k = operand.cols, stride = operand.codes.stride(0);
  const DType to = dtype_of(out.scalar_type());
  void* data = out.mutable_data_ptr();
  const Scales scales =
      operand.form.codes.data != nullptr || operand.row_scale.defined() ? float_scales(operand) : Scales{};
  if (grid.codes != nullptr && !grid.twos_complement) {
    if (grid.relative_dtype != DType::f8_e4m3 || grid.group % 8 != 0 || !operand.row_scale.defined()) return false;
    const kernel::cuda::Codebook codebook{.rows = n,
                                          .cols = k,
                                          .group = grid.group,
                                          .relative = bytes(operand.scales),
                                          .channel = floats(operand.row_scale),
                                          .codebook = floats(operand.codebook)};
    kernel::cuda::decode_codebook(codebook, bytes(operand.codes), data, to, k, stream);
    return true;
  }
  switch (grid.codes != nullptr ? ElementCode::int4 : operand.form.codes.code) {
    case ElementCode::int4:
      if (scales.data == nullptr) return false;
      kernel::cuda::decode_int4(bytes(operand.codes), n, k, stride, scales, data, to, k, stream);
      return true;
    case ElementCode::e4m3:
      if (operand.form.codes.scales.code == kernel::ScaleCode::e8m0) {
        if (operand.scale.defined()) return false;
        kernel::cuda::dequantize_groups(kernel::cuda::Group::fp8_32, bytes(operand.codes), bytes(operand.scales),
                                        nullptr, n, k, data, to, k, stream);
        return true;
      }
      [[fallthrough]];
    case ElementCode::e5m2:
    case ElementCode::int8: {
      if (scales.data == nullptr) return false;
      const DType code = operand.form.codes.code == ElementCode::int8   ? DType::i8
                         : operand.form.codes.code == ElementCode::e4m3 ? DType::f8_e4m3
                                                                        : DType::f8_e5m2;
      kernel::cuda::decode(bytes(operand.codes), code, n, k, stride, scales, data, to, k, stream);
      return true;
    }
    case ElementCode::e2m1:
      if (operand.form.codes.scales.code != kernel::ScaleCode::e4m3 || !operand.scale.defined()) return false;
      kernel::cuda::dequantize_groups(kernel::cuda::Group::fp4_16, bytes(operand.codes), bytes(operand.scales),
                                      floats(operand.scale), n, k, data, to, k, stream);
      return true;
    default:
      return false;
  }
}

/// A scale for every row: amax by `rule`, or the given one; and their reciprocals where asked for.
at::Tensor row_scales(const Source& x, std::optional<float> given, float largest, float smallest, float* multipliers,
                      const at::TensorOptions& options, kernel::cuda::Stream stream) {
  at::Tensor scales = given ? at::full({x.rows, 1}, *given, options) : at::empty({x.rows, 1}, options);
  auto* data = scales.mutable_data_ptr<float>();
  if (!given) kernel::cuda::amax_blocks(x, 1, 0, data, 1, nullptr, stream);
  // A given scale passes the same rule unchanged: it is divided by 1 and bounded by 0.
  kernel::cuda::scales_from_amax(data, multipliers, x.rows, kernel::cuda::ScaleRule::divide_floor,
                                 given ? 1.0f : largest, given ? 0.0f : smallest, stream);
  return scales;
}

}  // namespace

std::optional<at::Tensor> decode(const Operand& operand, at::ScalarType type) {
  const Launch launch(operand.codes.device());
  const int64_t rotation = operand.form.rotation;
  at::Tensor out =
      at::empty({operand.rows, operand.cols}, operand.codes.options().dtype(rotation != 0 ? at::kFloat : type));
  if (!decode_into(operand, out, launch.stream)) return std::nullopt;
  return rotation != 0 ? rotated(out, rotation, type) : out;
}

at::Tensor rotated(const at::Tensor& x, int64_t group, at::ScalarType type) {
  const Launch launch(x.device());
  at::Tensor out = at::empty(x.sizes(), x.options().dtype(type));
  kernel::cuda::rotate_convrot(source_of(x), group, out.mutable_data_ptr(), dtype_of(type), x.size(1), launch.stream);
  return out;
}

Activations quantize_int8(const at::Tensor& x, std::optional<float> given) {
  const Launch launch(x.device());
  Activations q;
  q.row_scale = row_scales(source_of(x), given, 127, 1e-30f, nullptr, x.options().dtype(at::kFloat), launch.stream);
  q.codes = at::empty(x.sizes(), x.options().dtype(at::kChar));
  kernel::cuda::encode_int8(source_of(x), Scales::per_row(floats(q.row_scale)), given ? -128 : -127,
                            q.codes.mutable_data_ptr<int8_t>(), x.size(1), {}, {}, launch.stream);
  return q;
}

Activations quantize_e4m3(const at::Tensor& x, std::optional<float> given) {
  const Launch launch(x.device());
  Activations q;
  const auto options = x.options().dtype(at::kFloat);
  at::Tensor multipliers = at::empty({x.size(0), 1}, options);
  q.row_scale =
      row_scales(source_of(x), given, 448, 0x1p-126f, multipliers.mutable_data_ptr<float>(), options, launch.stream);
  if (given) q.row_scale = q.row_scale.narrow(0, 0, std::min<int64_t>(x.size(0), 1));
  q.codes = at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn));
  kernel::cuda::encode_fp8(source_of(x), Scales::per_row(floats(multipliers)), DType::f8_e4m3,
                           static_cast<uint8_t*>(q.codes.mutable_data_ptr()), x.size(1), {}, {}, launch.stream);
  return q;
}

Activations quantize_int8_blocks(const at::Tensor& x) {
  const Launch launch(x.device());
  Activations q;
  q.codes = at::empty(x.sizes(), x.options().dtype(at::kChar));
  q.block_scales = at::empty({x.size(0), divide_up(x.size(1), 128)}, x.options().dtype(at::kFloat));
  kernel::cuda::quantize_groups(kernel::cuda::Group::int8_128, source_of(x), nullptr, 1e-30f,
                                static_cast<uint8_t*>(q.codes.mutable_data_ptr()), q.block_scales.mutable_data_ptr(),
                                {}, {}, launch.stream);
  return q;
}

Activations quantize_mx(const at::Tensor& x) {
  constexpr auto kGroup = kernel::cuda::Group::fp8_32;
  const Launch launch(x.device());
  Activations q;
  const at::TensorOptions options = x.options().dtype(at::kByte);
  const int64_t rows = kernel::cuda::group_padded(kGroup, x.size(0)),
                cols = kernel::cuda::group_padded(kGroup, x.size(1));
  q.codes = at::empty({rows, cols}, options).view(at::kFloat8_e4m3fn);
  q.block_scales =
      at::empty({static_cast<int64_t>(kernel::cuda::group_scale_bytes(kGroup, x.size(0), x.size(1)))}, options);
  kernel::cuda::quantize_groups(kGroup, source_of(x), nullptr, 0, static_cast<uint8_t*>(q.codes.mutable_data_ptr()),
                                q.block_scales.mutable_data_ptr(), {}, {}, launch.stream);
  q.codes = q.codes.narrow(0, 0, x.size(0));
  return q;
}

at::Tensor int8_product(const Activations& x, const Operand& weight, const at::Tensor& codes, const at::Tensor& bias,
                        at::ScalarType type) {
  const Launch launch(codes.device());
  at::Tensor y = at::empty({x.codes.size(0), weight.rows}, codes.options().dtype(type));
  const kernel::cuda::Int8Gemm gemm{.m = x.codes.size(0),
                                    .n = weight.rows,
                                    .k = weight.cols,
                                    .x = x.codes.const_data_ptr<int8_t>(),
                                    .w = codes.const_data_ptr<int8_t>(),
                                    .x_stride = x.codes.stride(0),
                                    .w_stride = codes.stride(0),
                                    .bias = floats(bias),
                                    .y = y.mutable_data_ptr(),
                                    .to = dtype_of(type),
                                    .y_stride = y.size(1)};
  if (x.block_scales.defined()) {
    kernel::cuda::gemm_int8_blockwise(gemm, floats(x.block_scales), floats(weight.scales), launch.stream);
  } else {
    const at::Tensor scales = x.row_scale.expand({gemm.m, 1}).contiguous();
    const bool rows = weight.row_scale.defined();
    TORCH_INTERNAL_ASSERT(rows || weight.scale.defined());
    kernel::cuda::gemm_int8_rowwise(gemm, floats(scales), floats(rows ? weight.row_scale : weight.scale),
                                    rows ? weight.rows : 1, launch.stream);
  }
  return y;
}

}  // namespace mezzotint::tensor::cuda::launch
