#include "mezzotint/kernel/decode.h"

#include <cassert>

namespace mezzotint::kernel {

void decode_fp8(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                const Scales& scales, float* out, int64_t out_stride) {
  assert(dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2);
  with_isa([&]<Isa I> { decode_fp8<I>(codes, dtype, rows, cols, codes_stride, scales, out, out_stride); });
}

void decode_fp8(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                const Scales& scales, uint16_t* out, int64_t out_stride) {
  assert(dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2);
  with_isa([&]<Isa I> { decode_fp8<I>(codes, dtype, rows, cols, codes_stride, scales, out, out_stride); });
}

void decode_int8(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 float* out, int64_t out_stride) {
  with_isa([&]<Isa I> { decode_int8<I>(codes, rows, cols, codes_stride, scales, out, out_stride); });
}

void decode_int8(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 uint16_t* out, int64_t out_stride) {
  with_isa([&]<Isa I> { decode_int8<I>(codes, rows, cols, codes_stride, scales, out, out_stride); });
}

}  // namespace mezzotint::kernel
