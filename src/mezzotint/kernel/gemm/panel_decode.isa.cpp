#include "mezzotint/kernel/gemm/panel_decode.h"

#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/kernel/gemm/panel_scales.h"

namespace mezzotint::kernel {
namespace {

template <class Code>
struct ByteElement {
  using Stored = Byte;
  MEZZOTINT_SCALAR static float load(uint8_t code) { return Code::decode(code); }
};
struct Int8Code {
  MEZZOTINT_SCALAR static float decode(uint8_t code) { return static_cast<float>(static_cast<int8_t>(code)); }
};
struct Int4Code {
  MEZZOTINT_SCALAR static float decode(uint32_t code) {
    return static_cast<float>(static_cast<int32_t>(code ^ 8u) - 8);
  }
};

template <class Element>
[[gnu::noinline]] void run(const void* from, int64_t n, float* __restrict out) {
  using Stored = typename Element::Stored;
  const Stored* __restrict codes = static_cast<const Stored*>(from);
  for (int64_t i = 0; i < n; ++i) out[i] = Element::load(codes[i]);
}

/// Two codes to a byte; kFirst is the shift of the nibble of the even column.
template <class Code, int kFirst>
[[gnu::noinline]] void run_nibbles(const void* from, int64_t n, float* __restrict out) {
  const Byte* __restrict codes = static_cast<const Byte*>(from);
  for (int64_t i = 0; i < n / 2; ++i) {
    out[2 * i] = Code::decode(codes[i] >> kFirst & 15u);
    out[2 * i + 1] = Code::decode(codes[i] >> (4 - kFirst) & 15u);
  }
  if (n % 2 != 0) out[n - 1] = Code::decode(codes[n / 2] >> kFirst & 15u);
}

/// Multiplies blocks of kBlock values; the first may have begun before the first value.
template <int kBlock>
void scale_blocks(float* __restrict out, int64_t n, const float* scales) {
  for (int64_t i = 0; i + kBlock <= n; i += kBlock, ++scales)
    for (int j = 0; j < kBlock; ++j) out[i + j] *= *scales;
  for (int64_t i = n / kBlock * kBlock; i < n; ++i) out[i] *= *scales;
}

constexpr int64_t kScalesAtOnce = 128;

void scale_row(const BlockScales& scales, int64_t r, int64_t c0, int64_t n, float* out) {
  float values[kScalesAtOnce];
  const int64_t block = scales.block_cols;
  for (int64_t c = c0; c < c0 + n;) {
    const int64_t first = c / block, last = smaller((c0 + n - 1) / block, first + kScalesAtOnce - 1);
    const int64_t end = smaller((last + 1) * block, c0 + n);
    read_scales(scales, r, first, last - first + 1, values);
    float* at = out + (c - c0);
    if (c % block == 0 && block == 16) {
      scale_blocks<16>(at, end - c, values);
    } else if (c % block == 0 && block == 32) {
      scale_blocks<32>(at, end - c, values);
    } else {
      for (int64_t j = first, i = c; j <= last; ++j)
        for (; i < smaller((j + 1) * block, end); ++i) out[i - c0] *= values[j - first];
    }
    c = end;
  }
}

using Run = void (*)(const void*, int64_t, float*);
Run choose(ElementCode code) {
  switch (code) {
    case ElementCode::f32:
      return run<F32Element>;
    case ElementCode::bf16:
      return run<Bf16Element>;
    case ElementCode::f16:
      return run<F16Element>;
    case ElementCode::e4m3:
      return run<ByteElement<E4m3>>;
    case ElementCode::e5m2:
      return run<ByteElement<E5m2>>;
    case ElementCode::int8:
      return run<ByteElement<Int8Code>>;
    case ElementCode::int4:
      return run_nibbles<Int4Code, 0>;
    case ElementCode::e2m1:
      return run_nibbles<E2m1, 4>;
  }
  return nullptr;
}

}  // namespace

template <>
void decode_to_f32<kIsa>(const Operand& m, const Rectangle& part, float* out, int64_t out_stride) {
  const Run decode = choose(m.code);
  const Byte* first = static_cast<const Byte*>(m.data) + part.c0 * bits(m.code) / 8;
  for (int64_t r = 0; r < part.rows; ++r) {
    float* row = out + r * out_stride;
    decode(first + (part.r0 + r) * m.stride, part.cols, row);
    if (m.scales.code != ScaleCode::none) scale_row(m.scales, part.r0 + r, part.c0, part.cols, row);
  }
}

}  // namespace mezzotint::kernel
