#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "mezzotint/kernel/gemm/quantize_float.h"

/// Activations as the codes that a format's runtime multiplies its weights with.
namespace mezzotint::formats {

enum class InputCodes : uint8_t {
  none,         ///< not rounded
  fp8_e4m3,     ///< amax / 448, per row or over all
  fp8_e5m2,     ///< amax / 57344
  int8,         ///< amax / 127, per row or over all (kernel/gemm/quantize_rows.h)
  int8_blocks,  ///< amax / 127 for every row and 128 columns
  int4,         ///< amax / 7 per row, codes -7 ... 7
  fp4,          ///< nvfp4: e4m3 scales of 16 columns under one float32, amax / 2688
  mx,           ///< mxfp8: a power of two for every 32 columns; nothing to choose
};

/// Whether they are multiplied as integers, those of 4 bits as ones of 8.
constexpr bool is_integer(InputCodes kind) {
  return kind == InputCodes::int8 || kind == InputCodes::int8_blocks || kind == InputCodes::int4;
}

/// Codes and what is left to multiply: x ~ diag(row_scale) * codes.
struct QuantizedInput {
  kernel::Operand codes;
  const float* row_scale = nullptr;  ///< or null for 1
};

size_t quantized_input_bytes(InputCodes kind, int64_t rows, int64_t cols);

/// Quantizes x into `scratch` (which the result points into): any kind but none and integers, which kernel/gemm/
/// quantize_rows.h quantizes. Scales are never 0, inf or NaN: amax is over finite values, and a row of zeros
/// has codes 0. Codes and scales are the same at every instruction-set level and for every number of threads.
QuantizedInput quantize_input(const kernel::Source& x, InputCodes kind, const kernel::FloatScaling& scaling,
                              std::span<std::byte> scratch, int threads);

}  // namespace mezzotint::formats
