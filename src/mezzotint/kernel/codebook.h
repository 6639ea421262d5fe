#pragma once
#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"

/// Weights in groups of columns that decode to the int8 grid of their row (comfy-kitchen's W4A8 and W6A8):
///
///     level = clamp(rint(base[code] * relative[row, group]), -127, 127)
///     weight = level * channel[row] (+ correction[group, row])
///
/// with one float32 operation, rounded to nearest-even, for every sign. Results are the same bits at every
/// instruction-set level.
namespace mezzotint::kernel {

/// Codes of 4 bits, low nibble first (int4.h); or of 6 bits, whose low nibbles are stored the same way in the first
/// half of a row, followed by the high bits: those of column c are bits 2 (c % 4) of byte c / 4.
struct LevelCodes {
  const float* base = nullptr;  ///< what the 16 codes stand for, ascending; 6 bits: null, code c stands for c - 32
  int bits = 4;
  int64_t cols = 0;    ///< of a whole row
  int64_t group = 16;  ///< columns that share a relative scale

  [[gnu::always_inline]] int64_t groups() const { return cols / group; }
};

/// Scales of all rows; row r and group g have relative[r * groups + g].
struct LevelScales {
  const void* relative = nullptr;
  DType relative_dtype = DType::f8_e4m3;  ///< or f32
  const float* channel = nullptr;
  const float* correction = nullptr;  ///< [groups, rows], or null
  int64_t rows = 0;
};

/// Columns that fit_groups and search_relative can take per group.
inline constexpr int64_t kLargestLevelGroup = 512;

/// The code whose level is nearest to (x - correction) / channel, a true division; of two equally near levels the
/// lower. Of codes with the same level it is the last where the value lies above that level, else the first. inf
/// saturates, NaN counts as 0. Under Rounding::stochastic one of the two levels around the value, each with a
/// probability that makes the value the expectation. 6-bit code 0 is never written. x is float32 and starts at (row0,
/// col0); `codes` points at column 0 of row row0. Any range of columns may come alone.
void encode_levels(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int64_t col0,
                   uint8_t* codes, int64_t codes_stride, const Rounding& rounding = {}, const ElementIndex& index = {});

void decode_levels(const uint8_t* codes, int64_t codes_stride, const LevelCodes& how, const LevelScales& scales,
                   int64_t row0, int64_t rows, int64_t col0, int64_t cols, float* out, int64_t out_stride);

/// How scales of groups are found.
enum class GroupFit : uint8_t {
  alternating,  ///< absmax, then twice: nearest codes, and the scale that fits them best in the least-squares sense
  absmax,       ///< absmax / 7, codes -8 ... 7
  range,        ///< (max - min) / 15, codes 0 ... 15 standing for -8 ... 7, and a correction 8 S + min
};

/// Scales of whole rows of float32 values: group_scales[r * groups + g] = S of the group, row_top[r] = the largest
/// |base[code] * S| of the row, and under GroupFit::range correction[g * correction_stride + r]. inf and NaN count as
/// 0; sums over a group are made in the order of torch's sum over a last dimension (8 lanes, then one after the other),
/// so that scales are comfy-kitchen's bit for bit up to 512 columns per group. S is at least 1e-8. Where a sum
/// overflows, S stays what it was.
void fit_groups(const Source& x, const LevelCodes& how, GroupFit fit, float* group_scales, float* row_top,
                float* correction, int64_t correction_stride);

/// relative[r * groups + g] = e4m3 of group_scales[r * groups + g] / channel[r]; saturates.
void relative_scales(const float* group_scales, int64_t rows, int64_t groups, const float* channel, uint8_t* relative);

/// Tries the neighbours of every relative scale, `reach` codes of e4m3 up and down, and takes the one whose levels are
/// nearest to the group in sum of squares, the first of equals in the order 0, -1, +1, -2, ... relative[r * groups + g]
/// of the rows of x; scales.channel and .correction start at row row0. reach 1 is what comfy-kitchen does for 6 bits.
void search_relative(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int reach,
                     uint8_t* relative);

// One level of the above (codebook.isa.cpp, codebook_fit.isa.cpp).
template <Isa I>
void encode_levels(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int64_t col0,
                   uint8_t* codes, int64_t codes_stride, const Rounding& rounding, const ElementIndex& index);
template <Isa I>
void decode_levels(const uint8_t* codes, int64_t codes_stride, const LevelCodes& how, const LevelScales& scales,
                   int64_t row0, int64_t rows, int64_t col0, int64_t cols, float* out, int64_t out_stride);
template <Isa I>
void fit_groups(const Source& x, const LevelCodes& how, GroupFit fit, float* group_scales, float* row_top,
                float* correction, int64_t correction_stride);
template <Isa I>
void relative_scales(const float* group_scales, int64_t rows, int64_t groups, const float* channel, uint8_t* relative);
template <Isa I>
void search_relative(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int reach,
                     uint8_t* relative);

}  // namespace mezzotint::kernel
