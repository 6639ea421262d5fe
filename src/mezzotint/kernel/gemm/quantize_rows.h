#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "mezzotint/kernel/gemm/int8_gemm.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Activations to int8 codes for the products of int8_gemm.h. Everything is float32 from the widened input on, each
/// operation rounded on its own, so the bytes are the same at every level and for every number of threads:
///   v = prologue(x); v *= col_scale[c]; v rotated; scale = max(amax |v| / 127, 1e-30); code = rint(v / scale)
/// (other integers than those of 8 bits: IntegerRange).
/// amax is over finite values; inf saturates and NaN becomes 0, as in encode_int8. A row of zeros has the scale 1e-30
/// and codes 0.
namespace mezzotint::kernel {

/// What is done to a row of activations first, fused with reading it.
enum class Prologue : uint8_t {
  none,
  gelu_tanh,
  swiglu,  ///< a row is [gate | up], twice as long as the result: silu(gate) * up
};

/// Which values share a scale.
enum class Int8Scaling : uint8_t {
  row,
  block,   ///< every 128 of a row; the last block may be shorter
  tensor,  ///< all; the rows are read twice
};

struct Int8Quantization {
  Int8Scaling scaling = Int8Scaling::row;
  Prologue prologue = Prologue::none;
  const float* col_scale = nullptr;    ///< one factor per column of the result, or null: scales of a weight's rows,
                                       ///< folded into the gradient of its output for the transposed product
  int64_t rotation = 0;                ///< ConvRot's group, which divides the columns; 0: not rotated
  const float* given_scale = nullptr;  ///< a scale for all, instead of a dynamic one; codes reach down to -128 then
  IntegerRange range;
};

/// Bytes of scratch, at any alignment; `cols` of the result.
size_t quantize_int8_scratch_bytes(int64_t rows, int64_t cols, int threads);

/// Writes codes[r * stride + c] and the scales: with row scales[r * scales_stride], with block scales[r * scales_stride
/// + c / 128], with tensor scales[0]; none with a given scale. codes must not overlap x. Throws Error
/// "scratch-too-small".
void quantize_int8(const Source& x, const Int8Quantization& how, const Int8BlockOutput& out,
                   std::span<std::byte> scratch, int threads = 1);

// One level: rows [row0, row0 + rows) of x; values has room for a row of the result. With tensor_scale null,
// Int8Scaling::tensor only sets *amax to the largest finite magnitude.
template <Isa I>
void quantize_int8_rows(const Source& x, const Int8Quantization& how, const Int8BlockOutput& out, int64_t row0,
                        int64_t rows, const float* tensor_scale, float* amax, float* values);

}  // namespace mezzotint::kernel
