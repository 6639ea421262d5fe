#include "mezzotint/base/integer.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

constexpr float kHighest = 127.0f;

template <class From>
[[gnu::noinline]] void nearest_run(const typename From::Stored* __restrict x, int64_t n, float scale, float lowest,
                                   Byte* __restrict q) {
  for (int64_t i = 0; i < n; ++i) q[i] = static_cast<uint8_t>(Int8::encode(From::load(x[i]) / scale, lowest, kHighest));
}

template <class From>
[[gnu::noinline]] void stochastic_run(const typename From::Stored* __restrict x, int64_t n, float scale, float lowest,
                                      Byte* __restrict q, const uint32_t* __restrict random) {
  for (int64_t i = 0; i < n; ++i)
    q[i] = static_cast<uint8_t>(Int8::encode_stochastic(From::load(x[i]) / scale, lowest, kHighest, random[i]));
}

template <class From>
void encode(const Source& x, const Scales& scales, float lowest, int8_t* codes, int64_t codes_stride,
            const Rounding& rounding, const ElementIndex& index) {
  const auto* data = static_cast<const typename From::Stored*>(x.data);
  const bool stochastic = rounding.mode == Rounding::Mode::stochastic;
  int64_t rows = x.rows, cols = x.cols;
  flatten(rows, cols,
          x.stride == cols && codes_stride == cols && is_scalar(scales) &&
              (!stochastic || index.row_stride == static_cast<uint64_t>(cols)));
  for_each_run(rows, cols, scales, [&](int64_t r, int64_t c, int64_t n, float scale) {
    const auto* from = data + r * x.stride + c;
    Byte* to = reinterpret_cast<Byte*>(codes) + r * codes_stride + c;
    if (!stochastic) return nearest_run<From>(from, n, scale, lowest, to);
    const uint64_t first = index.first + static_cast<uint64_t>(r) * index.row_stride + static_cast<uint64_t>(c);
    RandomChunk chunk;
    for (int64_t i = 0; i < n; i += RandomChunk::kCount) {
      const int64_t count = smaller(n - i, RandomChunk::kCount);
      const uint32_t* random = fill_random(rounding.key, first + static_cast<uint64_t>(i), count, chunk);
      stochastic_run<From>(from + i, count, scale, lowest, to + i, random);
    }
  });
}

}  // namespace

template <>
void encode_int8<kIsa>(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
                       const Rounding& rounding, const ElementIndex& index) {
  with_element(x.dtype, [&]<class From> {
    encode<From>(x, scales, static_cast<float>(lowest), codes, codes_stride, rounding, index);
  });
}

}  // namespace mezzotint::kernel
