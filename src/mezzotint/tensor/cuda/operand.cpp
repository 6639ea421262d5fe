#include "mezzotint/tensor/cuda/operand.h"

#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/bitwise_or.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/bitwise_xor.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "mezzotint/base/round_up.h"

namespace mezzotint::tensor::cuda {
namespace {

using kernel::ElementCode;
using kernel::ScaleCode;

constexpr int64_t kSlab = 1 << 24;  // elements that are decoded at a time

/// `count` elements of the stored tensor that holds this address, from there on, as another dtype of the same size.
at::Tensor view_of(const StoredWeight& weight, const void* address, int64_t count, at::ScalarType type) {
  const auto* wanted = static_cast<const std::byte*>(address);
  for (const at::Tensor& tensor : weight.tensors) {
    const auto* first = static_cast<const std::byte*>(tensor.const_data_ptr());
    if (tensor.numel() == 0 || wanted < first || wanted >= first + tensor.nbytes()) continue;
    const auto size = static_cast<int64_t>(tensor.element_size());
    return tensor.reshape({-1}).narrow(0, (wanted - first) / size, count).view(type);
  }
  TORCH_INTERNAL_ASSERT(false, "an address outside the stored tensors");
}

at::ScalarType stored_type(ElementCode code) {
  switch (code) {
    case ElementCode::f32:
      return at::kFloat;
    case ElementCode::bf16:
      return at::kBFloat16;
    case ElementCode::f16:
      return at::kHalf;
    case ElementCode::e4m3:
      return at::kFloat8_e4m3fn;
    case ElementCode::e5m2:
      return at::kFloat8_e5m2;
    case ElementCode::int8:
      return at::kChar;
    case ElementCode::int4:
    case ElementCode::e2m1:
      break;
  }
  return at::kByte;
}

/// [n, bytes] -> [n, 2 * bytes], values 0 ... 15.
at::Tensor nibbles(const at::Tensor& bytes, bool high_first) {
  const at::Tensor low = at::bitwise_and(bytes, 15), high = at::bitwise_right_shift(bytes, 4);
  return (high_first ? at::stack({high, low}, -1) : at::stack({low, high}, -1)).flatten(-2);
}

/// Of 4-bit codes in two's complement.
at::Tensor signed_nibbles(const at::Tensor& codes) {
  return at::bitwise_xor(codes, 8).to(at::kChar).sub_(8);
}

/// E2M1 in float16's bits: exponent and mantissa under its own exponent bits are the value times 2^-14.
at::Tensor e2m1_values(const at::Tensor& codes) {
  const at::Tensor wide = codes.to(at::kShort);
  const at::Tensor bits = at::bitwise_or(at::bitwise_left_shift(at::bitwise_and(wide, 8), 12),
                                         at::bitwise_left_shift(at::bitwise_and(wide, 7), 9));
  return bits.view(at::kHalf).to(at::kFloat).mul_(0x1p14);
}

/// Values of rows of codes before any scale, float32, padding columns included.
at::Tensor code_values(const at::Tensor& codes, ElementCode code) {
  if (code == ElementCode::e2m1) return e2m1_values(nibbles(codes, true));
  if (code == ElementCode::int4) return signed_nibbles(nibbles(codes, false)).to(at::kFloat);
  return codes.to(at::kFloat);
}

int64_t blocks_across(const kernel::BlockScales& s, int64_t cols) {
  return s.block_cols == 0 ? 1 : divide_up(cols, s.block_cols);
}

/// The block scales as a float32 matrix, a row of them for every block of rows.
at::Tensor scale_matrix(const Operand& operand) {
  const kernel::BlockScales& s = operand.form.codes.scales;
  const int64_t down = s.block_rows == 0 ? 1 : divide_up(operand.rows, s.block_rows);
  at::Tensor scales = s.blocked ? unswizzled(operand.scales, down, s.stride) : operand.scales.view({down, s.stride});
  scales = scales.narrow(1, 0, blocks_across(s, operand.cols)).contiguous();
  if (s.code == ScaleCode::e4m3) return scales.view(at::kFloat8_e4m3fn).to(at::kFloat);
  // The exponent's bits: code 0 is 0, as comfy-kitchen reads it.
  if (s.code == ScaleCode::e8m0) return at::bitwise_left_shift(scales.to(at::kInt), 23).view(at::kFloat);
  return scales;
}

/// values [n, >= K] times a factor for every block_cols of their columns; factors [n, blocks] or [1, blocks].
at::Tensor scaled(const at::Tensor& values, const at::Tensor& factors, int64_t block_cols) {
  if (block_cols == 0) return values.mul(factors);
  const int64_t wanted = factors.size(1) * block_cols, missing = wanted - values.size(1);
  const at::Tensor whole = missing > 0 ? at::constant_pad_nd(values, {0, missing}) : values.narrow(1, 0, wanted);
  return whole.reshape({values.size(0), factors.size(1), block_cols}).mul(factors.unsqueeze(2)).flatten(1);
}

bool is_grid(const Operand& operand) {
  return operand.form.codes.data == nullptr;
}

/// Levels of the picked rows of a grid, float32 integers.
template <class Pick>
at::Tensor grid_values(const Operand& operand, const Pick& pick) {
  const formats::GridCodes& grid = operand.form.grid_codes;
  const at::Tensor codes = nibbles(pick(operand.codes), false);
  if (grid.twos_complement) return signed_nibbles(codes).to(at::kFloat);
  at::Tensor levels =
      operand.codebook.defined() ? operand.codebook.index({codes.to(at::kLong)}) : codes.to(at::kFloat).sub_(8);
  if (operand.scales.defined()) {
    const at::Tensor relative = operand.scales.view({operand.rows, operand.cols / grid.group});
    levels = scaled(levels, pick(relative).to(at::kFloat), grid.group);
  }
  return levels.round_().clamp_(-127, 127);
}

/// ConvRot's matrix; every power of two is exact in all dtypes.
at::Tensor rotation_matrix(int64_t group, const at::TensorOptions& options) {
  const at::Tensor h4 = at::eye(4, options.dtype(at::kFloat)).flip({1}).mul_(-2).add_(1);
  at::Tensor matrix = h4;
  for (int64_t size = 4; size < group; size *= 4) matrix = at::kron(matrix, h4);
  return matrix.mul_(1 / std::sqrt(static_cast<double>(group))).to(options);
}

/// Calls `visit` with a first row and a number of rows, so that all rows come, kSlab elements at a time.
template <class Visit>
void for_slabs(const Operand& operand, Visit&& visit) {
  const int64_t step = std::max<int64_t>(kSlab / std::max<int64_t>(operand.cols, 1), 1);
  for (int64_t row0 = 0; row0 < operand.rows; row0 += step) visit(row0, std::min(step, operand.rows - row0));
}

/// The factors of every row's blocks, [N, blocks] or [1, blocks], with the scale of all; undefined where scales do not
/// vary along K.
at::Tensor row_factors(const Operand& operand) {
  if (is_grid(operand) || !operand.scales.defined()) return {};
  const int64_t block_rows = operand.form.codes.scales.block_rows;
  at::Tensor factors = scale_matrix(operand);
  if (operand.scale.defined()) factors = factors.mul(operand.scale);
  return block_rows > 1 ? factors.repeat_interleave(block_rows, 0).narrow(0, 0, operand.rows) : factors;
}

/// Values of the rows that `pick` takes of a tensor of all rows, float32.
template <class Pick>
at::Tensor decode_picked(const Operand& operand, const at::Tensor& factors, const Pick& pick) {
  at::Tensor values =
      is_grid(operand) ? grid_values(operand, pick) : code_values(pick(operand.codes), operand.form.codes.code);
  if (factors.defined())
    values = scaled(values, factors.size(0) == 1 && operand.rows != 1 ? factors : pick(factors),
                    operand.form.codes.scales.block_cols);
  values = values.narrow(1, 0, operand.cols);
  if (!factors.defined() && operand.scale.defined()) values = values.mul(operand.scale);
  if (operand.row_scale.defined()) values = values.mul(pick(operand.row_scale).unsqueeze(1));
  return operand.form.rotation != 0 ? rotated(values.contiguous(), operand.form.rotation) : values;
}

}  // namespace

at::Tensor unswizzled(const at::Tensor& buffer, int64_t rows, int64_t cols) {
  const int64_t down = divide_up(rows, 128), across = divide_up(cols, 4);
  return buffer.reshape({down, across, 32, 4, 4})
      .permute({0, 3, 2, 1, 4})
      .reshape({down * 128, across * 4})
      .narrow(0, 0, rows)
      .narrow(1, 0, cols);
}

at::Tensor swizzled(const at::Tensor& scales) {
  const int64_t down = divide_up(scales.size(0), 128), across = divide_up(scales.size(1), 4);
  return at::constant_pad_nd(scales, {0, across * 4 - scales.size(1), 0, down * 128 - scales.size(0)})
      .view({down, 4, 32, across, 4})
      .permute({0, 3, 2, 1, 4})
      .reshape({-1});
}

std::optional<Operand> operand_of(const StoredWeight& weight, int64_t expert) {
  const formats::Layout& layout = weight.layout;
  if (layout.format->matmul_form == nullptr) return std::nullopt;
  Operand operand{
      .form = layout.format->matmul_form(layout, weight.addresses(), expert), .rows = layout.rows, .cols = layout.cols};
  const formats::MatmulForm& form = operand.form;
  const bool grid = form.codes.data == nullptr;
  if (grid && form.grid_codes.codes == nullptr) return std::nullopt;
  const at::ScalarType type = grid ? at::kByte : stored_type(form.codes.code);
  const int64_t width = layout.row_bytes / static_cast<int64_t>(c10::elementSize(type));
  const void* codes = grid ? form.grid_codes.codes : form.codes.data;
  operand.codes = view_of(weight, codes, layout.stored_rows * width, type).view({layout.stored_rows, width});
  if (form.row_scale) operand.row_scale = view_of(weight, form.row_scale, layout.rows, at::kFloat);
  if (form.scale) operand.scale = view_of(weight, form.scale, 1, at::kFloat);
  const kernel::BlockScales& s = form.codes.scales;
  if (grid && form.grid_codes.relative != nullptr) {
    operand.scales = view_of(weight, form.grid_codes.relative, layout.rows * (layout.cols / form.grid_codes.group),
                             form.grid_codes.relative_dtype == DType::f32 ? at::kFloat : at::kFloat8_e4m3fn);
  } else if (!grid && s.code != ScaleCode::none) {
    const int64_t down = s.block_rows == 0 ? 1 : divide_up(layout.rows, s.block_rows);
    const int64_t count = s.blocked ? round_up_to(layout.stored_rows, 128) * s.stride : down * s.stride;
    operand.scales = view_of(weight, s.data, count, s.code == ScaleCode::f32 ? at::kFloat : at::kByte);
  }
  if (grid && form.grid_codes.codebook != nullptr)
    operand.codebook = view_of(weight, form.grid_codes.codebook, 16, at::kFloat);
  return operand;
}

at::Tensor rotated(const at::Tensor& x, int64_t group) {
  if (x.scalar_type() != at::kFloat)
    return at::mm(x.reshape({-1, group}), rotation_matrix(group, x.options())).view(x.sizes());
  at::Tensor values = x.mul(1 / std::sqrt(static_cast<double>(group)));
  for (int64_t stride = 1; stride < group; stride *= 4) {
    const std::vector<at::Tensor> v = values.reshape({-1, 4, stride}).unbind(1);
    const at::Tensor s = v[0].add(v[1]), t = v[0].sub(v[1]), u = v[2].add(v[3]), w = v[2].sub(v[3]);
    values = at::stack({s.add(w), s.sub(w), t.add(u), u.sub(t)}, 1);
  }
  return values.view(x.sizes());
}

at::Tensor decode(const Operand& operand, at::ScalarType type) {
  at::Tensor values = at::empty({operand.rows, operand.cols}, operand.codes.options().dtype(type));
  const at::Tensor factors = row_factors(operand);
  for_slabs(operand, [&](int64_t row0, int64_t count) {
    const auto pick = [&](const at::Tensor& rows) { return rows.narrow(0, row0, count); };
    values.narrow(0, row0, count).copy_(decode_picked(operand, factors, pick));
  });
  return values;
}

at::Tensor decode_rows(const Operand& operand, const at::Tensor& indices, at::ScalarType type) {
  const auto pick = [&](const at::Tensor& rows) {  // as bytes, since not every dtype of one byte has this operation
    const bool byte = rows.element_size() == 1;
    return (byte ? rows.view(at::kByte) : rows).index_select(0, indices).view(rows.scalar_type());
  };
  return decode_picked(operand, row_factors(operand), pick).to(type);
}

at::Tensor int8_codes(const Operand& operand) {
  if (!is_grid(operand) && operand.form.codes.code == ElementCode::int8)
    return operand.codes.narrow(0, 0, operand.rows).narrow(1, 0, operand.cols);
  at::Tensor codes = at::empty({operand.rows, operand.cols}, operand.codes.options().dtype(at::kChar));
  for_slabs(operand, [&](int64_t row0, int64_t count) {
    const auto pick = [&](const at::Tensor& rows) { return rows.narrow(0, row0, count); };
    const at::Tensor slab =
        is_grid(operand) ? grid_values(operand, pick) : signed_nibbles(nibbles(pick(operand.codes), false));
    codes.narrow(0, row0, count).copy_(slab.narrow(1, 0, operand.cols));
  });
  return codes;
}

}  // namespace mezzotint::tensor::cuda
