#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/source.h"

/// One-byte and four-bit codes under float32 scales: reduce.h, encode.h and decode.h on a GPU, with the same bytes.
/// Matrices hold fewer than 2^34 elements and fewer than 2^31 rows and columns. No pointer needs to be aligned beyond
/// its elements; rows whose address divides by 16 go faster.
namespace mezzotint::kernel::cuda {

/// amax_blocks of reduce.h; a block of 0 is the whole dimension. `non_finite`, if given, becomes 1 where an inf or NaN
/// was seen (it is never reset).
void amax_blocks(const Source& x, int64_t block_rows, int64_t block_cols, float* out, int64_t out_stride,
                 uint32_t* non_finite, Stream stream);

/// How a scale follows from the largest magnitude. Every step is one float32 operation.
enum class ScaleRule : uint32_t {
  divide,         ///< amax / largest; 1 for zeros, and the smallest normal number where 1 / scale would overflow
  divide_floor,   ///< max(amax / largest, floor)
  clamped_ratio,  ///< max(amax, floor) / largest
  reciprocal,     ///< 1 / (largest * (1 / max(amax, floor)))
  fp4_tensor,     ///< amax / largest, with largest = 6 * 448: positive, and 6 * 448 * scale finite; 1 for zeros
};

/// scales[i] = rule(scales[i]); multipliers[i] = 1 / scales[i] where given.
void scales_from_amax(float* scales, float* multipliers, int64_t count, ScaleRule rule, float largest, float floor,
                      Stream stream);

/// As in encode.h. The scales begin at the matrix (row0 = col0 = 0).
void encode_fp8(const Source& x, const Scales& multipliers, DType to, uint8_t* codes, int64_t codes_stride,
                const Rounding& rounding, const ElementIndex& index, Stream stream);
void encode_int8(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
                 const Rounding& rounding, const ElementIndex& index, Stream stream);
/// clamp(rint(x / scale), -7, 7) in two's complement, the even column in the low nibble; codes_stride counts bytes. The
/// number of columns is even.
void encode_int4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, const Rounding& rounding,
                 const ElementIndex& index, Stream stream);

/// code * scale, one float32 multiplication, then nearest-even to `to` (f32, bf16 or f16; beyond the largest: inf).
/// `code` is f8_e4m3, f8_e5m2 or i8.
void decode(const uint8_t* codes, DType code, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
            void* out, DType to, int64_t out_stride, Stream stream);
void decode_int4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 void* out, DType to, int64_t out_stride, Stream stream);

/// A weight of 4-bit codes on the int8 grid of its channel: i8 = clamp(rint(level * relative), -127, 127), where the
/// level is codebook[code], or code - 8 without a codebook; value = i8 * channel (+ correction).
struct Codebook {
  int64_t rows = 0, cols = 0;         ///< cols divides by `group` and by 2
  int64_t group = 16;                 ///< columns that share a relative scale, a multiple of 8
  const uint8_t* relative = nullptr;  ///< e4m3 [rows, cols / group]
  const float* channel = nullptr;     ///< [rows]
  const float* codebook = nullptr;    ///< [16], or null
  const float* correction = nullptr;  ///< [cols / group, rows], or null
};

void decode_codebook(const Codebook& weight, const uint8_t* codes, void* out, DType to, int64_t out_stride,
                     Stream stream);
/// encode_levels of kernel/codebook.h for 4 bits: the nearest level to (x - correction) / channel, of two equally near
/// ones the lower code. x is float32.
void encode_codebook(const Codebook& weight, const float* x, int64_t stride, uint8_t* codes, const Rounding& rounding,
                     const ElementIndex& index, Stream stream);

}  // namespace mezzotint::kernel::cuda
