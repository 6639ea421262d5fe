#pragma once
#include "mezzotint/kernel/gemm/operand.h"

/// Activations to the codes that float_gemm multiplies, as the runtime of each format does before its product (integers
/// and rotation: quantize_rows.h). Each function fills codes and returns the operand that float_gemm multiplies; what
/// its scales leave out are factors of the rows of y: row_scales goes to Epilogue::row_scale. Codes are the bytes of
/// kernel/encode.h at every level. inf saturates; scales are over finite values, and a zero row has codes 0. Rows
/// follow each other without gaps in codes and block scales.
namespace mezzotint::kernel {

/// Scales of activations.
struct FloatScaling {
  enum class Of : uint8_t {
    row,     ///< dynamic, one for every row: our default, since it costs nothing more than reading the row and follows
             ///< every token
    tensor,  ///< dynamic, one for all rows
    given,   ///< static, an input_scale of the file; values beyond it saturate. ComfyUI takes 1 for fp8 where it has
             ///< none
  };
  Of of = Of::row;
  float scale = 1;  ///< if given
};

/// code = fp8(clamp(x * (1 / scale))), scale = max(amax / largest code, 2^-126); to = f8_e4m3 or f8_e5m2. codes: a byte
/// each. NaN stays NaN.
Operand quantize_fp8(const Source& x, DType to, const FloatScaling& scaling, float* row_scales, uint8_t* codes);

/// E2M1 codes, even column in the high nibble, with one E4M3 scale for 16 columns under the scale max(amax / 2688,
/// 2^-110) of row or tensor (fp4.h). codes: (cols + 1) / 2 bytes a row; block_scales: (cols + 15) / 16 a row. A NaN
/// becomes a number.
Operand quantize_fp4(const Source& x, const FloatScaling& scaling, float* row_scales, uint8_t* codes,
                     uint8_t* block_scales);

/// E4M3 codes with one power of two for 32 columns (mx.h), no other scale. block_scales: (cols + 31) / 32 a row.
Operand quantize_mx(const Source& x, uint8_t* codes, uint8_t* block_scales);

}  // namespace mezzotint::kernel
