#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Microscaling floats (OCP MX): E4M3 codes under one power of two per 32 columns of a row. Blocks are counted from
/// column 0 of the weight and the last of a row may be narrower; `scales` points at the byte of the first row and block
/// 0, row by row, `scales_stride` apart.
///
/// A scale byte b means 2^(b - 127), and 0 means 0.0, as in comfy-kitchen (OCP: 2^-127). Bytes are the same at every
/// instruction-set level.
namespace mezzotint::kernel {

inline constexpr int64_t kMxBlock = 32;

/// For every block b = clamp(ceil(log2(amax / 448)) + 127, 1, 254), exact in the bits: the quotient is one float32
/// division, the exponent is raised where its mantissa is not zero. A block of zeros has b = 0; no other has, so that
/// both readings of 0 give the same values. inf and NaN take no part in amax. x must start at column 0. Returns whether
/// one was seen.
bool mx_scales(const Source& x, uint8_t* scales, int64_t scales_stride);

/// fp8(clamp(x / 2^(b - 127), +-448)); b = 0: code 0. Element (0, 0) of x is column col0 of the weight.
void encode_mx(const Source& x, const uint8_t* scales, int64_t scales_stride, int64_t col0, uint8_t* codes,
               int64_t codes_stride, const Rounding& rounding = {}, const ElementIndex& index = {});

/// code * 2^(b - 127), one float32 multiplication; b = 255 gives inf and NaN. uint16_t: that product rounded to bf16 as
/// cast.h does it.
void decode_mx(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
               int64_t col0, int64_t codes_stride, float* out, int64_t out_stride);
void decode_mx(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
               int64_t col0, int64_t codes_stride, uint16_t* out, int64_t out_stride);

// One level of the above (mx.isa.cpp).
template <Isa I>
bool mx_scales(const Source& x, uint8_t* scales, int64_t scales_stride);
template <Isa I>
void encode_mx(const Source& x, const uint8_t* scales, int64_t scales_stride, int64_t col0, uint8_t* codes,
               int64_t codes_stride, const Rounding& rounding, const ElementIndex& index);
template <Isa I>
void decode_mx(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
               int64_t col0, int64_t codes_stride, float* out, int64_t out_stride);
template <Isa I>
void decode_mx(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
               int64_t col0, int64_t codes_stride, uint16_t* out, int64_t out_stride);

}  // namespace mezzotint::kernel
