#include "mezzotint/kernel/decode.h"

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/kernel/isa_bf16.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

struct IntegerCode {
  MEZZOTINT_SCALAR static float decode(uint8_t code) { return static_cast<float>(static_cast<int8_t>(code)); }
};

#if defined(MEZZOTINT_BF16_VECTORS)
template <class Code>
struct VectorOf {
  using type = E4m3Vector;
};
template <>
struct VectorOf<E5m2> {
  using type = E5m2Vector;
};
template <>
struct VectorOf<IntegerCode> {
  using type = Int8Vector;
};
#endif

template <class Code>
[[gnu::noinline]] void run(const Byte* __restrict codes, int64_t n, float scale, Dword* __restrict out) {
  for (int64_t i = 0; i < n; ++i) store_value(Code::decode(codes[i]) * scale, out[i]);
}
template <class Code>
[[gnu::noinline]] void run(const Byte* __restrict codes, int64_t n, float scale, Word* __restrict out) {
  int64_t i = 0;
#if defined(MEZZOTINT_BF16_VECTORS)
  i = store_scaled_bf16<typename VectorOf<Code>::type>(codes, n, scale, out);
#endif
  for (; i < n; ++i) store_value(Code::decode(codes[i]) * scale, out[i]);
}

template <class Code, class Out>
void decode(const Byte* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales, Out* out,
            int64_t out_stride) {
  const int64_t stride = codes_stride;
  flatten(rows, cols, codes_stride == cols && out_stride == cols && is_scalar(scales));
  for_each_run(rows, cols, scales, [&](int64_t r, int64_t c, int64_t n, float scale) {
    run<Code>(codes + r * stride + c, n, scale, elements(out) + r * out_stride + c);
  });
}

template <class Out>
void decode_float8(const Byte* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                   const Scales& scales, Out* out, int64_t out_stride) {
  if (dtype == DType::f8_e4m3) {
    decode<E4m3>(codes, rows, cols, codes_stride, scales, out, out_stride);
  } else {
    decode<E5m2>(codes, rows, cols, codes_stride, scales, out, out_stride);
  }
}

}  // namespace

template <>
void decode_fp8<kIsa>(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                      const Scales& scales, float* out, int64_t out_stride) {
  decode_float8(codes, dtype, rows, cols, codes_stride, scales, out, out_stride);
}

template <>
void decode_fp8<kIsa>(const uint8_t* codes, DType dtype, int64_t rows, int64_t cols, int64_t codes_stride,
                      const Scales& scales, uint16_t* out, int64_t out_stride) {
  decode_float8(codes, dtype, rows, cols, codes_stride, scales, out, out_stride);
}

template <>
void decode_int8<kIsa>(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                       float* out, int64_t out_stride) {
  decode<IntegerCode>(reinterpret_cast<const Byte*>(codes), rows, cols, codes_stride, scales, out, out_stride);
}

template <>
void decode_int8<kIsa>(const int8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                       uint16_t* out, int64_t out_stride) {
  decode<IntegerCode>(reinterpret_cast<const Byte*>(codes), rows, cols, codes_stride, scales, out, out_stride);
}

}  // namespace mezzotint::kernel
