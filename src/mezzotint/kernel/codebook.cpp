#include "mezzotint/kernel/codebook.h"

#include <cassert>

namespace mezzotint::kernel {

void encode_levels(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int64_t col0,
                   uint8_t* codes, int64_t codes_stride, const Rounding& rounding, const ElementIndex& index) {
  assert(x.dtype == DType::f32);
  with_isa([&]<Isa I> { encode_levels<I>(x, how, scales, row0, col0, codes, codes_stride, rounding, index); });
}

void decode_levels(const uint8_t* codes, int64_t codes_stride, const LevelCodes& how, const LevelScales& scales,
                   int64_t row0, int64_t rows, int64_t col0, int64_t cols, float* out, int64_t out_stride) {
  with_isa([&]<Isa I> { decode_levels<I>(codes, codes_stride, how, scales, row0, rows, col0, cols, out, out_stride); });
}

void fit_groups(const Source& x, const LevelCodes& how, GroupFit fit, float* group_scales, float* row_top,
                float* correction, int64_t correction_stride) {
  assert(x.dtype == DType::f32 && x.cols == how.cols && how.group <= kLargestLevelGroup);
  with_isa([&]<Isa I> { fit_groups<I>(x, how, fit, group_scales, row_top, correction, correction_stride); });
}

void relative_scales(const float* group_scales, int64_t rows, int64_t groups, const float* channel, uint8_t* relative) {
  with_isa([&]<Isa I> { relative_scales<I>(group_scales, rows, groups, channel, relative); });
}

void search_relative(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int reach,
                     uint8_t* relative) {
  assert(x.dtype == DType::f32 && x.cols == how.cols && how.group <= kLargestLevelGroup);
  with_isa([&]<Isa I> { search_relative<I>(x, how, scales, row0, reach, relative); });
}

}  // namespace mezzotint::kernel
