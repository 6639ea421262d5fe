#pragma once
#include <c10/core/ScalarType.h>

#include <string>

#include "mezzotint/formats/matmul.h"
#include "mezzotint/tensor/cuda/gpu.h"
#include "mezzotint/tensor/product.h"
#include "mezzotint/tensor/quantized_tensor.h"

/// Which product a weight on a GPU is multiplied with. Pure: everything that it depends on is an argument.
namespace mezzotint::tensor::cuda {

enum class Product : uint8_t {
  int_mm,          ///< at::_int_mm, scales applied to its sums
  scaled_mm,       ///< at::_scaled_mm with a scale for each operand; scales of rows applied to its result
  scaled_mm_rows,  ///< at::_scaled_mm with scales of rows
  scaled_mm_mx,    ///< at::_scaled_mm with a power of two for 32 columns
  scaled_mm_fp4,   ///< at::_scaled_mm of 4-bit floats with an e4m3 scale for 16 columns
  int8_rows,       ///< kernel/cuda/gemm_int8.h, a scale for each row
  int8_blocks,     ///< kernel/cuda/gemm_int8.h, a scale for 128 columns of x and 128 x 128 of the weight
  dequantize,      ///< the weight's values and at::linear, in the dtype of x
};

/// "at::_int_mm", ...
std::string_view name(Product product);

struct Call {
  int64_t m = 0, n = 0, k = 0;          ///< of x [m, k] and the weight [n, k], whichever way the product goes
  at::ScalarType type = at::kBFloat16;  ///< of the result
  Side side = Side::forward;
};

struct Choice {
  Product product = Product::dequantize;
  std::string why_not_faster;  ///< one clause; "" where there is nothing faster for such codes
};

/// A form with neither codes nor levels is one that no product reads. Which hardware and sizes a product takes are
/// PyTorch's own checks (ATen/native/cuda/Blas.cpp, ScaledBlas.cpp and RowwiseScaledMM.cu, 2.11 to 2.13) and, for
/// kernel/cuda, its headers.
Choice choose_product(const formats::MatmulForm& form, const Call& call, const ProductOptions& options, const Gpu& gpu);

}  // namespace mezzotint::tensor::cuda
