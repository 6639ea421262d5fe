#include "mezzotint/tensor/product.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>

#include <vector>

namespace mezzotint::tensor {
namespace {

bool is_input(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

kernel::FloatScaling scaling_of(const ProductOptions& options) {
  if (!options.input_scale) return {};
  return {.of = kernel::FloatScaling::Of::given, .scale = *options.input_scale};
}

}  // namespace

std::string why_no_product(const at::Tensor& x, const QuantizedTensorImpl& weight) {
  if (!weight.device().is_cpu()) return fmt::format("no kernel for {}", weight.device().str());
  if (!x.device().is_cpu()) return fmt::format("the input is on {}", x.device().str());
  if (!is_input(x.scalar_type())) return fmt::format("inputs of dtype {}", c10::toString(x.scalar_type()));
  return "";
}

at::Tensor multiply(const at::Tensor& x, const QuantizedTensorImpl& weight, Side side,
                    const std::optional<at::Tensor>& bias) {
  const StoredWeight& stored = *weight.stored();
  const ProductOptions& options = *weight.product();
  const formats::Layout& layout = stored.layout;
  const bool backward = side == Side::backward;
  const int64_t wanted = backward ? layout.rows : layout.cols, columns = backward ? layout.cols : layout.rows;
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == wanted, "an input of shape ", x.sizes(), " does not fit a weight of shape ",
              at::IntArrayRef(layout.shape), ": ", wanted, " columns are wanted");
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = columns;
  at::Tensor y = at::empty(shape, x.options());
  at::Tensor input = x;
  if (!backward && options.pre_quant_scale.defined()) input = at::mul(x, options.pre_quant_scale.to(x.scalar_type()));
  TORCH_CHECK(layout.experts == 1 || (x.dim() == 3 && x.size(0) == layout.experts), "an input of shape ", x.sizes(),
              " does not fit a bank of ", layout.experts, " experts");
  input = input.reshape({-1, wanted}).contiguous();
  const int64_t rows = input.size(0) / layout.experts;
  if (rows == 0 || columns == 0) return y;

  at::Tensor floats;
  if (bias && bias->defined()) floats = bias->detach().to(at::kFloat).contiguous();
  const formats::Parameters parameters = stored.parameters();
  const DType dtype = dtype_of(x.scalar_type());
  formats::Matmul product{.layout = &layout,
                          .parameters = &parameters,
                          .x = {nullptr, dtype, rows, wanted, wanted},
                          .transposed = backward,
                          .scaling = scaling_of(options)};
  if (!backward && !options.full_precision_matrix_mult) product.inputs = formats::Inputs::runtime;
  if (floats.defined()) product.bias = floats.const_data_ptr<float>();
  const size_t size = formats::matmul_scratch_bytes(product, 0);
  at::Tensor scratch = at::empty({static_cast<int64_t>(size)}, at::kByte);
  const auto bytes = static_cast<int64_t>(x.element_size());
  for (int64_t& expert = product.expert; expert < layout.experts; ++expert) {
    product.x.data = static_cast<const std::byte*>(input.const_data_ptr()) + expert * rows * wanted * bytes;
    formats::matmul(product,
                    {static_cast<std::byte*>(y.mutable_data_ptr()) + expert * rows * columns * bytes, dtype, columns},
                    {static_cast<std::byte*>(scratch.mutable_data_ptr()), size}, 0);
  }
  if (backward && options.pre_quant_scale.defined()) y.mul_(options.pre_quant_scale.to(y.scalar_type()));
  return y;
}

}  // namespace mezzotint::tensor
