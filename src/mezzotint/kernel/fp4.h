#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// 4-bit floats (E2M1, base/e2m1.h) in blocks of 16 columns with a scale each: value = code * t, where t is the float32
/// product of the block's E4M3 scale and the weight's float32 scale. Two codes to a byte, the even column in the HIGH
/// nibble. As in encode.h every operation is one rounded float32 operation, and bytes are the same at every
/// instruction-set level.
namespace mezzotint::kernel {

inline constexpr int64_t kFp4Block = 16;

/// scales[r * stride + b] = e4m3(min((amax / 6) / global, 448)), two divisions, of block b of row r; a last block may
/// have fewer columns. inf and NaN are left out of amax. global must be > 0. Returns whether an inf or NaN was seen.
bool fp4_scales(const Source& x, float global, uint8_t* scales, int64_t stride);

/// How many scales are tried for every block.
enum class Fp4Search : uint8_t {
  two,       ///< the largest weight becomes 6 or 4 ("four over six")
  thirteen,  ///< 0.78 to 1.6 times the scale of fp4_scales, then the least-squares scale of the best one's codes
};

/// As fp4_scales, but of the scales that are tried the one with the least squared error, the first of equals. Errors
/// are sums over the block in the order of columns, each times its column_weight (x.cols finite values >= 0, or null
/// for 1). Blocks that are not zero get a scale of at least 2^-9. 448 * global should leave room: scales saturate.
bool search_fp4_scales(const Source& x, float global, const float* column_weight, Fp4Search search, uint8_t* scales,
                       int64_t stride);

/// code = e2m1(clamp(x / t, -6, 6)), a true division; +0 where t is 0. The scales are those t: block_rows 1, block_cols
/// 16. codes[r * codes_stride + (scales.col0 + c) / 2] holds the code of (r, c); the other nibbles of the first and
/// last byte are kept. The sign bit of x is kept; inf and NaN saturate.
void encode_fp4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride,
                const Rounding& rounding = {}, const ElementIndex& index = {});

/// out[r * out_stride + c] = value of the code * t, codes and scales as above.
void decode_fp4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                float* out, int64_t out_stride);
void decode_fp4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                uint16_t* out, int64_t out_stride);

// One level of the above (fp4.isa.cpp, fp4_scales.isa.cpp).
template <Isa I>
bool fp4_scales(const Source& x, float global, uint8_t* scales, int64_t stride);
template <Isa I>
bool search_fp4_scales(const Source& x, float global, const float* column_weight, Fp4Search search, uint8_t* scales,
                       int64_t stride);
template <Isa I>
void encode_fp4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, const Rounding& rounding,
                const ElementIndex& index);
template <Isa I>
void decode_fp4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                float* out, int64_t out_stride);
template <Isa I>
void decode_fp4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                uint16_t* out, int64_t out_stride);

}  // namespace mezzotint::kernel
