#include "mezzotint/kernel/int4.h"

#include <cassert>

namespace mezzotint::kernel {

void encode_int4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, int64_t col0,
                 const Rounding& rounding, const ElementIndex& index) {
  with_isa([&]<Isa I> { encode_int4<I>(x, scales, codes, codes_stride, col0, rounding, index); });
}

void decode_int4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, int64_t col0,
                 const Scales& scales, float* out, int64_t out_stride) {
  with_isa([&]<Isa I> { decode_int4<I>(codes, rows, cols, codes_stride, col0, scales, out, out_stride); });
}

void unpack_int4(const uint8_t* codes, int64_t cols, int8_t* values) {
  with_isa([&]<Isa I> { unpack_int4<I>(codes, cols, values); });
}

void pack_nibbles(const uint8_t* values, int64_t cols, int64_t col0, uint8_t* codes) {
  with_isa([&]<Isa I> { pack_nibbles<I>(values, cols, col0, codes); });
}

void unpack_nibbles(const uint8_t* codes, int64_t cols, int64_t col0, uint8_t* values) {
  with_isa([&]<Isa I> { unpack_nibbles<I>(codes, cols, col0, values); });
}

void search_int4_rows(const Source& x, const float* column_weight, int64_t step, float floor, float* scales) {
  assert(x.dtype == DType::f32 && step >= 1);
  with_isa([&]<Isa I> { search_int4_rows<I>(x, column_weight, step, floor, scales); });
}

}  // namespace mezzotint::kernel
