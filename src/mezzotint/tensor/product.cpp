#include "mezzotint/tensor/product.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <fmt/format.h>

#include <vector>

#include "mezzotint/formats/matmul_path.h"
#include "mezzotint/tensor/cuda/product.h"
#include "mezzotint/tensor/dispatch.h"

namespace mezzotint::tensor {
namespace {

bool is_input(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

/// How the inputs of a forward product are rounded.
void choose_inputs(formats::Matmul& product, const ProductOptions& options, int64_t rank) {
  if (options.full_precision_matrix_mult) return;
  product.inputs = formats::Inputs::runtime;
  if (options.input_scale) product.scaling = {.of = kernel::FloatScaling::Of::given, .scale = *options.input_scale};
  const auto form = product.layout->format->matmul_form;
  if (form == nullptr || !unscaled_as_comfyui(options, form(*product.layout, *product.parameters, 0).input)) return;
  product.scaling = {.of = kernel::FloatScaling::Of::given, .scale = 1};
  if (rank == 1) product.inputs = formats::Inputs::as_given;
}

void tell_path(const formats::Matmul& product, const ProductOptions& options) {
  formats::MatmulPath path = formats::matmul_path(product);
  if (path.leaves_inputs) {
    const char* why =
        options.full_precision_matrix_mult ? "full_precision_matrix_mult is set" : "ComfyUI does not round a 1-D input";
    path.reason = path.reason.empty() ? why : why + ("; " + path.reason);
  }
  tell_kernel(std::move(path.kernel), std::move(path.reason));
}

/// y [experts, M, ...] = input [experts * M, ...] times the weight, on the CPU.
void multiply_into(at::Tensor& y, const at::Tensor& input, const StoredWeight& stored, Side side,
                   const ProductOptions& options, const at::Tensor& bias, int64_t rank) {
  const formats::Layout& layout = stored.layout;
  const bool backward = side == Side::backward;
  const int64_t wanted = input.size(1), columns = y.size(-1), rows = input.size(0) / layout.experts;
  at::Tensor floats;
  if (bias.defined()) floats = bias.to(at::kFloat).contiguous();
  const formats::Parameters parameters = stored.parameters();
  const DType dtype = dtype_of(input.scalar_type());
  formats::Matmul product{.layout = &layout,
                          .parameters = &parameters,
                          .x = {nullptr, dtype, rows, wanted, wanted},
                          .transposed = backward};
  if (!backward) choose_inputs(product, options, rank);
  if (floats.defined()) product.bias = floats.const_data_ptr<float>();
  if (kernels_are_watched()) tell_path(product, options);
  // libtorch's setting; its OpenMP runtime is ours, too: one pool of threads for both.
  const int threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const size_t size = formats::matmul_scratch_bytes(product, threads);
  at::Tensor scratch = at::empty({static_cast<int64_t>(size)}, at::kByte);
  const auto x_bytes = static_cast<int64_t>(input.element_size()), y_bytes = static_cast<int64_t>(y.element_size());
  for (int64_t& expert = product.expert; expert < layout.experts; ++expert) {
    product.x.data = static_cast<const std::byte*>(input.const_data_ptr()) + expert * rows * wanted * x_bytes;
    formats::matmul(product,
                    {static_cast<std::byte*>(y.mutable_data_ptr()) + expert * rows * columns * y_bytes,
                     dtype_of(y.scalar_type()), columns},
                    {static_cast<std::byte*>(scratch.mutable_data_ptr()), size}, threads);
  }
}

}  // namespace

bool unscaled_as_comfyui(const ProductOptions& options, formats::InputCodes input) {
  const bool fp8 = input == formats::InputCodes::fp8_e4m3 || input == formats::InputCodes::fp8_e5m2;
  return fp8 && !options.input_scale && options.unscaled_inputs == UnscaledInputs::as_comfyui;
}

std::string why_no_product(const at::Tensor& x, const QuantizedTensorImpl& weight) {
  if (x.device() != weight.device())
    return fmt::format("the input is on {}, the weight on {}", x.device().str(), weight.device().str());
  if (!is_input(x.scalar_type())) return fmt::format("inputs of dtype {}", c10::toString(x.scalar_type()));
  return "";
}

at::Tensor multiply(const at::Tensor& x, const QuantizedTensorImpl& weight, Side side,
                    const std::optional<at::Tensor>& bias, std::optional<at::ScalarType> type) {
  const StoredWeight& stored = *weight.stored();
  const ProductOptions& options = *weight.product();
  const formats::Layout& layout = stored.layout;
  const bool backward = side == Side::backward;
  const int64_t wanted = backward ? layout.rows : layout.cols, columns = backward ? layout.cols : layout.rows;
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == wanted, "an input of shape ", x.sizes(), " does not fit a weight of shape ",
              at::IntArrayRef(layout.shape), ": ", wanted, " columns are wanted");
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = columns;
  at::Tensor y = at::empty(shape, x.options().dtype(type.value_or(x.scalar_type())));
  at::Tensor input = x;
  if (!backward && options.pre_quant_scale.defined())
    input = at::mul(x, options.pre_quant_scale.to(x.device(), x.scalar_type()));
  TORCH_CHECK(layout.experts == 1 || (x.dim() == 3 && x.size(0) == layout.experts), "an input of shape ", x.sizes(),
              " does not fit a bank of ", layout.experts, " experts");
  input = input.reshape({-1, wanted}).contiguous();
  const int64_t rows = input.size(0) / layout.experts;
  if (rows == 0 || columns == 0) return y;

  TORCH_CHECK(!bias || !bias->defined() || bias->sizes() == at::IntArrayRef({columns}), "a bias of ", columns,
              " values is wanted, not of shape ", bias->sizes());
  const at::Tensor term = bias && bias->defined() ? bias->detach() : at::Tensor();
  if (y.device().is_cpu()) {
    multiply_into(y, input, stored, side, options, term, x.dim());
  } else {
    at::Tensor flat = y.view({-1, columns});
    cuda::multiply_into(flat, input, stored, side, options, term, x.dim());
  }
  if (backward && options.pre_quant_scale.defined()) y.mul_(options.pre_quant_scale.to(y.device(), y.scalar_type()));
  return y;
}

}  // namespace mezzotint::tensor
