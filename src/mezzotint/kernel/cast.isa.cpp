#include "mezzotint/kernel/cast.h"

#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

struct ToF32 {
  using Stored = Dword;
  MEZZOTINT_SCALAR static uint32_t store(float x) { return float_bits(x); }
};
template <class Code>
struct ToCode {
  using Stored = Word;
  MEZZOTINT_SCALAR static uint16_t store(float x) { return static_cast<uint16_t>(Code::encode(x)); }
};
template <class Code>
struct ToCodeSaturating {
  using Stored = Word;
  MEZZOTINT_SCALAR static uint16_t store(float x) { return static_cast<uint16_t>(Code::encode_saturating(x)); }
};

template <class From, class To>
[[gnu::noinline]] void run(const typename From::Stored* __restrict x, int64_t n, typename To::Stored* __restrict y) {
  for (int64_t i = 0; i < n; ++i) y[i] = To::store(From::load(x[i]));
}

template <class From, class To>
void convert(const Source& x, void* dst, int64_t dst_stride) {
  int64_t rows = x.rows, cols = x.cols;
  flatten(rows, cols, x.stride == cols && dst_stride == cols);
  for (int64_t r = 0; r < rows; ++r)
    run<From, To>(static_cast<const typename From::Stored*>(x.data) + r * x.stride, cols,
                  static_cast<typename To::Stored*>(dst) + r * dst_stride);
}

template <class Code>
[[gnu::noinline]] void stochastic_run(const Dword* __restrict x, int64_t n, Word* __restrict y,
                                      const uint32_t* __restrict random) {
  for (int64_t i = 0; i < n; ++i)
    y[i] = static_cast<uint16_t>(Code::encode_stochastic(float_from_bits(x[i]), random[i]));
}

template <class Code>
void convert_stochastic(const Source& x, void* dst, int64_t dst_stride, uint64_t key, const ElementIndex& index) {
  RandomChunk chunk;
  for (int64_t r = 0; r < x.rows; ++r) {
    const Dword* from = static_cast<const Dword*>(x.data) + r * x.stride;
    Word* to = static_cast<Word*>(dst) + r * dst_stride;
    const uint64_t first = index.first + static_cast<uint64_t>(r) * index.row_stride;
    for (int64_t i = 0; i < x.cols; i += RandomChunk::kCount) {
      const int64_t count = smaller(x.cols - i, RandomChunk::kCount);
      const uint32_t* random = fill_random(key, first + static_cast<uint64_t>(i), count, chunk);
      stochastic_run<Code>(from + i, count, to + i, random);
    }
  }
}

}  // namespace

template <>
void cast<kIsa>(const Source& x, DType to, void* dst, int64_t dst_stride, Overflow overflow) {
  if (x.rows <= 0 || x.cols <= 0) return;
  if (x.dtype == to) {
    const int64_t bytes = to == DType::f32 ? 4 : 2;
    for (int64_t r = 0; r < x.rows; ++r)
      __builtin_memcpy(static_cast<Byte*>(dst) + r * dst_stride * bytes,
                       static_cast<const Byte*>(x.data) + r * x.stride * bytes, static_cast<size_t>(x.cols * bytes));
    return;
  }
  const bool saturate = overflow == Overflow::saturate;
  with_element(x.dtype, [&]<class From> {
    if (to == DType::f32) return convert<From, ToF32>(x, dst, dst_stride);
    if (to == DType::bf16 && saturate) return convert<From, ToCodeSaturating<Bf16>>(x, dst, dst_stride);
    if (to == DType::bf16) return convert<From, ToCode<Bf16>>(x, dst, dst_stride);
    if (saturate) return convert<From, ToCodeSaturating<Fp16>>(x, dst, dst_stride);
    convert<From, ToCode<Fp16>>(x, dst, dst_stride);
  });
}

template <>
void cast_stochastic<kIsa>(const Source& x, DType to, void* dst, int64_t dst_stride, const Rounding& rounding,
                           const ElementIndex& index) {
  if (to == DType::bf16) {
    convert_stochastic<Bf16>(x, dst, dst_stride, rounding.key, index);
  } else {
    convert_stochastic<Fp16>(x, dst, dst_stride, rounding.key, index);
  }
}

}  // namespace mezzotint::kernel
