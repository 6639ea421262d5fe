#include "mezzotint/kernel/mx.h"

namespace mezzotint::kernel {

bool mx_scales(const Source& x, uint8_t* scales, int64_t scales_stride) {
  return with_isa([&]<Isa I> { return mx_scales<I>(x, scales, scales_stride); });
}

void encode_mx(const Source& x, const uint8_t* scales, int64_t scales_stride, int64_t col0, uint8_t* codes,
               int64_t codes_stride, const Rounding& rounding, const ElementIndex& index) {
  with_isa([&]<Isa I> { encode_mx<I>(x, scales, scales_stride, col0, codes, codes_stride, rounding, index); });
}

void decode_mx(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
               int64_t col0, int64_t codes_stride, float* out, int64_t out_stride) {
  with_isa([&]<Isa I> { decode_mx<I>(codes, scales, scales_stride, rows, cols, col0, codes_stride, out, out_stride); });
}

void decode_mx(const uint8_t* codes, const uint8_t* scales, int64_t scales_stride, int64_t rows, int64_t cols,
               int64_t col0, int64_t codes_stride, uint16_t* out, int64_t out_stride) {
  with_isa([&]<Isa I> { decode_mx<I>(codes, scales, scales_stride, rows, cols, col0, codes_stride, out, out_stride); });
}

}  // namespace mezzotint::kernel
