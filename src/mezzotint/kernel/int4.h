#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Codes of four bits, two to a byte: byte j of a row holds column 2j in its low nibble and column 2j + 1 in its high
/// one. (nvfp4 has them the other way round and is not handled here.)
///
/// `codes` points at column 0 of the first row, rows are `codes_stride` bytes apart; the matrix at hand starts at
/// column `col0` of it. Any range of columns may be written alone: the other nibble of a byte that is shared with a
/// neighbour stays. Codes are the same bytes at every instruction-set level; codes must not overlap x.
namespace mezzotint::kernel {

/// Two's-complement codes clamp(rint(x / scale), -7, 7), a true division; -8 is never written. inf saturates; NaN (also
/// 0 / 0) becomes 0. Under Rounding::stochastic as encode_int8.
void encode_int4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, int64_t col0,
                 const Rounding& rounding = {}, const ElementIndex& index = {});

/// out[r * out_stride + c] = float(code of column col0 + c) * scale, one float32 multiplication; codes -8 ... 7.
void decode_int4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, int64_t col0,
                 const Scales& scales, float* out, int64_t out_stride);

/// values[c] = the code of column c, -8 ... 7. One row.
void unpack_int4(const uint8_t* codes, int64_t cols, int8_t* values);

/// codes[(col0 + c) / 2] gets the low four bits of values[c] for c < cols. One row.
void pack_nibbles(const uint8_t* values, int64_t cols, int64_t col0, uint8_t* codes);
/// values[c] = the four bits of column col0 + c, 0 ... 15. One row.
void unpack_nibbles(const uint8_t* codes, int64_t cols, int64_t col0, uint8_t* values);

/// Fractions of the absmax scale that search_int4_rows tries, largest first. The first is 1.
inline constexpr int kInt4Factors = 10;
constexpr float kInt4Factor[kInt4Factors] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.76f, 0.72f, 0.68f, 0.62f, 0.55f};

/// Better scales for rows of int4 codes than absmax / 7. scales[r] holds absmax / 7 (or a floor) of row r of the
/// float32 matrix and is replaced by the fraction of it with the least sum of h_c (w - s q)^2, then by the
/// least-squares scale of the codes, <q, w> / <q, q>, if that is better still. h_c is column_weight[c] >= 0, or 1 where
/// it is null. Fractions are judged on every `step`-th run of 16 columns (1 = all); the last step looks at all.
/// A row that holds an inf or NaN, and one whose scale is `floor`, keeps its scale. Sums are made in a fixed order (16
/// lanes of float32, folded to float64): the same scales at every level.
void search_int4_rows(const Source& x, const float* column_weight, int64_t step, float floor, float* scales);

// One level of the above (int4.isa.cpp, int4_search.isa.cpp).
template <Isa I>
void encode_int4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, int64_t col0,
                 const Rounding& rounding, const ElementIndex& index);
template <Isa I>
void decode_int4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, int64_t col0,
                 const Scales& scales, float* out, int64_t out_stride);
template <Isa I>
void unpack_int4(const uint8_t* codes, int64_t cols, int8_t* values);
template <Isa I>
void pack_nibbles(const uint8_t* values, int64_t cols, int64_t col0, uint8_t* codes);
template <Isa I>
void unpack_nibbles(const uint8_t* codes, int64_t cols, int64_t col0, uint8_t* values);
template <Isa I>
void search_int4_rows(const Source& x, const float* column_weight, int64_t step, float floor, float* scales);

}  // namespace mezzotint::kernel
