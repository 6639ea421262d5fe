#pragma once
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Codes to float32: out[r * out_stride + c] = float(codes[r * codes_stride + c]) * scale, one float32 multiplication.
/// Where `out` is uint16_t, that product rounded to bf16 as cast.h does it. For f16 pass float32 through cast.h.
namespace mezzotint::kernel {

/// dtype = f8_e4m3 or f8_e5m2. NaN and inf codes stay what they are.
void decode_fp8(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                const Scales& scales, float* out, int64_t out_stride);
void decode_fp8(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                const Scales& scales, uint16_t* out, int64_t out_stride);

void decode_int8(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 float* out, int64_t out_stride);
void decode_int8(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 uint16_t* out, int64_t out_stride);

// One level of the above (decode.isa.cpp).
template <Isa I>
void decode_fp8(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                const Scales& scales, float* out, int64_t out_stride);
template <Isa I>
void decode_fp8(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                const Scales& scales, uint16_t* out, int64_t out_stride);
template <Isa I>
void decode_int8(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 float* out, int64_t out_stride);
template <Isa I>
void decode_int8(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 uint16_t* out, int64_t out_stride);

}  // namespace mezzotint::kernel
