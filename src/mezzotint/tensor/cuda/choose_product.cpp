#include "mezzotint/tensor/cuda/choose_product.h"

#include <fmt/format.h>

#include "mezzotint/base/round_up.h"

namespace mezzotint::tensor::cuda {
namespace {

using formats::InputCodes;

// Sums of so many products of codes stay within int32 (kernel/cuda/gemm_int8.h; codes reach down to -128).
constexpr int64_t kInt32Columns = 1 << 17;
// at::_int_mm takes no fewer rows; x is padded.
constexpr int64_t kFewestRows = 17;
constexpr int kBlockScales = 12080;  // of CUDA: cuBLASLt's block scales

Choice decoded(std::string why) {
  return {Product::dequantize, std::move(why)};
}

std::string wants(std::string_view what, int capability, const Gpu& gpu) {
  if (gpu.capability >= capability) return "";
  if (gpu.capability == 0) return "the GPU's compute capability is not known";
  return fmt::format("{} need compute capability {}.{}, this GPU has {}.{}", what, capability / 10, capability % 10,
                     gpu.capability / 10, gpu.capability % 10);
}

std::string wants_multiple(char dimension, int64_t size, int64_t of) {
  return size > 0 && size % of == 0 ? "" : fmt::format("{} = {} is not a multiple of {}", dimension, size, of);
}

/// The first reason of several.
std::string first(std::initializer_list<std::string> reasons) {
  for (const std::string& reason : reasons)
    if (!reason.empty()) return reason;
  return "";
}

std::string no_kernels(const Gpu& gpu) {
  if (gpu.kernels) return "";
  return first({wants("our kernels", 80, gpu), "our kernels are not compiled in (MEZZOTINT_CUDA)"});
}

std::string too_long(int64_t k) {
  return k < kInt32Columns ? "" : fmt::format("K = {} could leave int32", k);
}

Choice integers(const Call& call, const Gpu& gpu, bool unpacked) {
  if (std::string why = too_long(call.k); !why.empty()) return decoded(std::move(why));
  const std::string ours = no_kernels(gpu);
  const std::string theirs =
      first({wants("int8 tensor cores", 75, gpu), wants_multiple('K', call.k, 8), wants_multiple('N', call.n, 8)});
  if (ours.empty() && (!theirs.empty() || call.m < kFewestRows)) return {Product::int8_rows, ""};
  if (!theirs.empty()) return decoded(theirs);
  if (unpacked) return {Product::int_mm, "codes are unpacked to int8 for every product"};
  return {Product::int_mm, call.m < kFewestRows ? "x is padded to 32 rows: " + ours : ""};
}

Choice fp8(const formats::MatmulForm& form, const Call& call, const ProductOptions& options, const Gpu& gpu) {
  std::string why =
      first({wants("fp8 products", 89, gpu), wants_multiple('K', call.k, 16), wants_multiple('N', call.n, 16)});
  if (!why.empty()) return decoded(std::move(why));
  if (options.input_scale && form.row_scale == nullptr) return {Product::scaled_mm, ""};
  // PyTorch's kernels for scales of rows: 8.9 and 9 to 12, and always to bfloat16; other dtypes came with time.
  const int major = gpu.capability / 10;
  if (call.type != at::kBFloat16) return {Product::scaled_mm, "scales of rows are fused for bfloat16 only"};
  if (gpu.capability != 89 && (major < 9 || major > 12))
    return {Product::scaled_mm, "PyTorch has no kernel for scales of rows on this GPU"};
  return {Product::scaled_mm_rows, ""};
}

std::string block_scales(const Gpu& gpu) {
  std::string why = wants("products with block scales", 100, gpu);
  if (why.empty() && gpu.runtime < kBlockScales)
    why = fmt::format("block scales came with CUDA 12.8, libtorch has {}.{}", gpu.runtime / 1000,
                      gpu.runtime % 1000 / 10);
  return why;
}

}  // namespace

std::string_view name(Product product) {
  switch (product) {
    case Product::int_mm:
      return "at::_int_mm";
    case Product::scaled_mm:
      return "at::_scaled_mm";
    case Product::scaled_mm_rows:
      return "at::_scaled_mm, scales of rows";
    case Product::scaled_mm_mx:
      return "at::_scaled_mm, scales of 32";
    case Product::scaled_mm_fp4:
      return "at::_scaled_mm, 4-bit, scales of 16";
    case Product::int8_rows:
      return "int8 kernel, scales of rows";
    case Product::int8_blocks:
      return "int8 kernel, scales of blocks";
    case Product::dequantize:
      break;
  }
  return "dequantized on the GPU";
}

Choice choose_product(const formats::MatmulForm& form, const Call& call, const ProductOptions& options,
                      const Gpu& gpu) {
  if (form.codes.data == nullptr && form.grid_codes.codes == nullptr) return decoded("no product reads these codes");
  if (call.side == Side::backward) return decoded("gradients are not rounded");
  if (form.input == InputCodes::none) return decoded("the format does not round inputs");
  if (options.full_precision_matrix_mult) return decoded("full_precision_matrix_mult");
  switch (form.input) {
    case InputCodes::int8:
      return integers(call, gpu, form.grid_codes.codes != nullptr);
    case InputCodes::int4:
      return integers(call, gpu, true);
    case InputCodes::int8_blocks: {
      std::string why = first({no_kernels(gpu), too_long(call.k)});
      return why.empty() ? Choice{Product::int8_blocks, ""} : decoded(std::move(why));
    }
    case InputCodes::fp8_e4m3:
      return fp8(form, call, options, gpu);
    case InputCodes::fp8_e5m2:
      return decoded("cuBLASLt does not multiply e5m2 with e5m2");
    case InputCodes::mx: {
      std::string why = block_scales(gpu);
      return why.empty() ? Choice{Product::scaled_mm_mx, ""} : decoded(std::move(why));
    }
    case InputCodes::fp4: {
      const int64_t bytes = round_up_to(call.k, 16) / 2;
      std::string why = first({block_scales(gpu), bytes % 16 == 0 ? "" : wants_multiple('K', call.k, 32)});
      return why.empty() ? Choice{Product::scaled_mm_fp4, ""} : decoded(std::move(why));
    }
    case InputCodes::none:
      break;
  }
  return decoded("the format does not round inputs");
}

}  // namespace mezzotint::tensor::cuda
