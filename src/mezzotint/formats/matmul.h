#pragma once
#include <cstddef>
#include <span>

#include "mezzotint/formats/format.h"
#include "mezzotint/formats/matmul_inputs.h"
#include "mezzotint/kernel/gemm/gemm_types.h"
#include "mezzotint/kernel/gemm/operand.h"

/// Products with a stored weight of any format: y = x W^T, or g W for the gradient of the input.
namespace mezzotint::formats {

/// 4-bit codes of a grid, low nibble first: i8 = clamp(rint(level * relative), -127, 127), where the level is
/// codebook[code], the code in two's complement, or code - 8.
struct GridCodes {
  const void* codes = nullptr;            ///< rows Layout::row_bytes apart; null = `grid` alone knows
  const void* relative = nullptr;         ///< [N, K / group], or null for 1
  DType relative_dtype = DType::f8_e4m3;  ///< or f32
  int64_t group = 0;                      ///< columns that share a relative scale
  const float* codebook = nullptr;        ///< [16], or null
  bool twos_complement = false;
};

/// The weight of one expert as kernel/gemm takes it: W = diag(row_scale) * scale * codes * rotation. A format gives
/// what it has (Format::matmul_form); one that gives nothing is decoded to float32 first. A form holds addresses within
/// the stored tensors and is made without reading them, so they may lie in the memory of a GPU.
struct MatmulForm {
  kernel::Operand codes;  ///< [N, K] with the scales that vary along K; data = null where `grid` is given, or (with
                          ///< grid = null too) where this layout has no form and is decoded
  const float* row_scale = nullptr;     ///< one per row of W, or null for 1
  const float* scale = nullptr;         ///< one for all, or null for 1
  int64_t rotation = 0;                 ///< ConvRot's group: x is rotated before it meets the codes; 0 = not rotated
  InputCodes input = InputCodes::none;  ///< what the format's own runtime rounds x to
  /// Where codes are not numbers themselves: writes rows [row0, row0 + rows) of the weight in units of row_scale, as
  /// integers of [-127, 127] in float32, packed.
  void (*grid)(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, float* out) = nullptr;
  GridCodes grid_codes;  ///< the same for those who decode elsewhere (a GPU), where it can be said so
};

/// Which x a product multiplies.
enum class Inputs : uint8_t {
  as_given,  ///< W alone is quantized; the one error is the weight's and that of float32 sums
  runtime,   ///< rounded as the format's own runtime does it (MatmulForm::input), so that codes meet codes
};

struct Matmul {
  const Layout* layout = nullptr;
  const Parameters* parameters = nullptr;  ///< [0] holds the codes
  int64_t expert = 0;
  kernel::Source x;         ///< [M, K], f32, bf16 or f16; transposed: the gradient g, [M, N]
  bool transposed = false;  ///< y[M, K] = g[M, N] W instead of y[M, N] = x[M, K] W^T
  Inputs inputs = Inputs::as_given;
  kernel::FloatScaling scaling;  ///< of x, where inputs == runtime
  const float* bias = nullptr;   ///< one per column of y, or null
  kernel::Activation activation = kernel::Activation::none;
};

/// Bytes of scratch for this product, at any alignment: the quantized or rotated input, the panels of kernel/gemm, and
/// for formats without a form (and grids in the transposed product) the decoded weight.
size_t matmul_scratch_bytes(const Matmul& product, int threads);

/// Computes all of y; threads = 0: as many as this process may use. Results do not depend on the number of threads.
/// Throws Error "scratch-too-small". Rounding of inputs in the transposed product exists for int8 codes only; other
/// formats take g as given. Error bounds: kernel/gemm/float_gemm.h and int8_gemm.h, with the decoded weight (and the
/// rounded input, where inputs == runtime) as operands; a rotation adds its own (kernel/hadamard.h).
void matmul(const Matmul& product, const kernel::Output& y, std::span<std::byte> scratch, int threads);

}  // namespace mezzotint::formats
