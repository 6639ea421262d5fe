#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <string>
#include <vector>

#include "mezzotint/kernel/gemm/int8_blocks.h"
#include "mezzotint/tensor/activations.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/quantized_tensor.h"

// Block-wise int8 codes, quantized in and quantized out.
namespace mezzotint::tensor {
namespace {

using c10::OperatorHandle;
using kernel::kInt8Block;
using torch::jit::Stack;

constexpr std::string_view kFormat = "int8_blockwise";  // names a format: these are its operations
constexpr std::string_view kActivation =
    "int8_blockwise:block_size=128,geometry=row_group";  // names a format: the layout of activations

bool is_blockwise(const StoredWeight& weight) {
  return weight.layout.format->name == kFormat && weight.layout.block_cols == kInt8Block && weight.device().is_cpu();
}
bool has_rows(const StoredWeight& weight) {
  return is_blockwise(weight) && weight.layout.block_rows == 1;
}
bool has_tiles(const StoredWeight& weight) {
  return is_blockwise(weight) && weight.layout.block_rows == kInt8Block;
}

/// Codes and scales of one matrix of a bank.
kernel::Int8Codes codes_of(const StoredWeight& weight, int64_t expert = 0) {
  const formats::Layout& layout = weight.layout;
  const int64_t across = layout.cols / kInt8Block, down = layout.rows / layout.block_rows;
  return {weight.tensors[0].const_data_ptr<int8_t>() + expert * layout.rows * layout.cols, layout.cols,
          weight.tensors[1].const_data_ptr<float>() + expert * down * across, across};
}
kernel::Int8BlockOutput output_of(StoredWeight& weight, int64_t expert = 0) {
  const kernel::Int8Codes codes = codes_of(weight, expert);
  return {const_cast<int8_t*>(codes.codes), codes.stride, const_cast<float*>(codes.scales), codes.scales_stride};
}

StoredWeight empty_weight(formats::Layout layout) {
  StoredWeight weight{.layout = std::move(layout)};
  for (const formats::StoredTensor& tensor : weight.layout.tensors)
    weight.tensors.push_back(at::empty(tensor.shape, scalar_type(tensor.dtype)));
  return weight;
}

at::Tensor wrap(StoredWeight weight, const at::Tensor& like) {
  return make_tensor(std::make_shared<const StoredWeight>(std::move(weight)), like.scalar_type());
}

std::string gelu(const OperatorHandle& op, Stack& stack) {
  const at::Tensor x = torch::jit::peek(stack, 0, 2).toTensor();
  const std::string approximate(torch::jit::peek(stack, 1, 2).toStringView());
  if (!is_activation(x)) return "gelu works on codes with a scale for 128 values of a row";
  if (approximate != "tanh" && approximate != "none") return "an unknown approximation";
  const StoredWeight& from = *quantized(x).stored();
  StoredWeight to = empty_weight(from.layout);
  to.convolution = from.convolution;
  kernel::int8_gelu(codes_of(from), from.layout.total_rows(), from.layout.cols, output_of(to), 0,
                    approximate == "tanh" ? kernel::Gelu::tanh : kernel::Gelu::erf);
  tell_kernel("gelu of int8 blocks");
  return finish(op, stack, wrap(std::move(to), x));
}

/// A transposed tensor with its codes in the new order. Tiles exchange their places; scales along rows are chosen anew,
/// where the new rows have whole blocks. Others keep their order and their flag.
std::string contiguous_blocks(const OperatorHandle& op, Stack& stack) {
  const size_t count = op.schema().arguments().size();
  const at::Tensor x = torch::jit::peek(stack, 0, count).toTensor();
  const StoredWeight& from = *quantized(x).stored();
  const formats::Layout& layout = from.layout;
  const bool tiles = has_tiles(from), rows = has_rows(from) && layout.rows % kInt8Block == 0;
  if (!quantized(x).transposed() || from.convolution || !(tiles || rows)) return finish(op, stack, x);
  Shape shape = layout.shape;
  std::swap(shape[shape.size() - 2], shape[shape.size() - 1]);
  const auto kind = shape.size() == 3 ? formats::LayerKind::expert_bank : formats::LayerKind::linear;
  const formats::Description turned = layout.format->describe({.shape = shape, .kind = kind}, layout.options);
  if (!turned.layout) return finish(op, stack, x);
  StoredWeight to = empty_weight(*turned.layout);
  for (int64_t expert = 0; expert < layout.experts; ++expert) {
    if (tiles)
      kernel::int8_transpose_weight(codes_of(from, expert), layout.rows, layout.cols, output_of(to, expert));
    else
      kernel::int8_transpose(codes_of(from, expert), layout.rows, layout.cols, output_of(to, expert), 0);
  }
  tell_kernel("transpose of int8 blocks");
  return finish(
      op, stack,
      make_tensor(std::make_shared<const StoredWeight>(std::move(to)), x.scalar_type(), false, quantized(x).product()));
}

}  // namespace

at::Tensor quantize_activations(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 1, "activations have a dimension");
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  StoredWeight stored = quantize(rows, kActivation, {.effort = 0});
  if (x.dim() != 2) stored.convolution = shape_of(x);
  return wrap(std::move(stored), x);
}

bool is_activation(const at::Tensor& tensor) {
  return is_quantized(tensor) && !quantized(tensor).transposed() && has_rows(*quantized(tensor).stored());
}

at::Tensor multiply_codes(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  if (!is_activation(x) || !is_quantized(weight) || weight.dim() != 2 || quantized(weight).transposed()) return {};
  const StoredWeight &left = *quantized(x).stored(), &right = *quantized(weight).stored();
  const ProductOptions& options = *quantized(weight).product();
  if (!has_tiles(right) || options.pre_quant_scale.defined() || options.full_precision_matrix_mult) return {};
  const int64_t m = left.layout.total_rows(), n = right.layout.rows, k = right.layout.cols;
  TORCH_CHECK(left.layout.cols == k, "an input of shape ", x.sizes(), " does not fit a weight of shape ",
              weight.sizes());
  kernel::Int8Product product{.m = m, .n = n, .k = k, .x = codes_of(left), .w = codes_of(right)};
  at::Tensor floats;
  if (bias && bias->defined()) {
    TORCH_CHECK(bias->sizes() == at::IntArrayRef({n}), "a bias of ", n, " values is wanted");
    floats = bias->detach().to(at::kFloat).contiguous();
    product.epilogue.bias = floats.const_data_ptr<float>();
  }
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = n;
  at::Tensor y = at::empty(shape, x.scalar_type());
  const size_t size = kernel::int8_gemm_scratch_bytes(m, n, k, 0);
  at::Tensor scratch = at::empty({static_cast<int64_t>(size)}, at::kByte);
  kernel::int8_forward(product, {y.mutable_data_ptr(), dtype_of(y.scalar_type()), n},
                       {static_cast<std::byte*>(scratch.mutable_data_ptr()), size}, 0);
  return y;
}

std::span<const LayoutOperation> blockwise_operations() {
  static const std::vector<LayoutOperation> operations = {{"aten::gelu", kFormat, gelu},
                                                          {"aten::contiguous", kFormat, contiguous_blocks}};
  return operations;
}

}  // namespace mezzotint::tensor
