#include "mezzotint/kernel/fp4.h"

#include <cassert>

namespace mezzotint::kernel {
namespace {

[[maybe_unused]] bool has_fp4_blocks(const Scales& scales) {
  return scales.block_rows == 1 && scales.block_cols == kFp4Block && scales.col0 >= 0;
}

}  // namespace

bool fp4_scales(const Source& x, float global, uint8_t* scales, int64_t stride) {
  assert(global > 0);
  return with_isa([&]<Isa I> { return fp4_scales<I>(x, global, scales, stride); });
}

bool search_fp4_scales(const Source& x, float global, const float* column_weight, Fp4Search search, uint8_t* scales,
                       int64_t stride) {
  assert(global > 0);
  return with_isa([&]<Isa I> { return search_fp4_scales<I>(x, global, column_weight, search, scales, stride); });
}

void encode_fp4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, const Rounding& rounding,
                const ElementIndex& index) {
  assert(has_fp4_blocks(scales));
  with_isa([&]<Isa I> { encode_fp4<I>(x, scales, codes, codes_stride, rounding, index); });
}

void decode_fp4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                float* out, int64_t out_stride) {
  assert(has_fp4_blocks(scales));
  with_isa([&]<Isa I> { decode_fp4<I>(codes, rows, cols, codes_stride, scales, out, out_stride); });
}

void decode_fp4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                uint16_t* out, int64_t out_stride) {
  assert(has_fp4_blocks(scales));
  with_isa([&]<Isa I> { decode_fp4<I>(codes, rows, cols, codes_stride, scales, out, out_stride); });
}

}  // namespace mezzotint::kernel
