#include "mezzotint/base/integer.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_int8.h"

namespace mezzotint::kernel {
namespace {

constexpr float kHighest = 127.0f;

template <class From>
[[gnu::noinline]] void divide_run(const typename From::Stored* __restrict x, int64_t n, float scale, int lowest_code,
                                  Byte* __restrict q) {
  const auto lowest = static_cast<float>(lowest_code);
  for (int64_t i = 0; i < n; ++i) q[i] = static_cast<uint8_t>(Int8::encode(From::load(x[i]) / scale, lowest, kHighest));
}

template <class From>
[[gnu::always_inline]] inline void nearest_run(const typename From::Stored* x, int64_t n, float scale, int lowest,
                                               Byte* q) {
#if defined(MEZZOTINT_INT8_VECTORS)
  if (n >= kInt8Step && Divisor::exists(scale)) {
    constexpr int64_t kPiece = 256 * kInt8Step;  // so much is done again where an element needs the division itself
    const Divisor divisor(scale);
    while (n > 0) {
      const int64_t count = n < kPiece + kInt8Step ? n : kPiece;
      if (!encode_quotients<From>(x, count, divisor, lowest, q)) [[unlikely]]
        divide_run<From>(x, count, scale, lowest, q);
      x += count;
      q += count;
      n -= count;
    }
    return;
  }
#endif
  divide_run<From>(x, n, scale, lowest, q);
}

template <class From>
[[gnu::noinline]] void stochastic_run(const typename From::Stored* __restrict x, int64_t n, float scale,
                                      int lowest_code, Byte* __restrict q, const uint32_t* __restrict random) {
  const auto lowest = static_cast<float>(lowest_code);
  for (int64_t i = 0; i < n; ++i)
    q[i] = static_cast<uint8_t>(Int8::encode_stochastic(From::load(x[i]) / scale, lowest, kHighest, random[i]));
}

template <class From>
void encode(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
            const Rounding& rounding, const ElementIndex& index) {
  const auto* data = static_cast<const typename From::Stored*>(x.data);
  const bool stochastic = rounding.mode == Rounding::Mode::stochastic;
  int64_t rows = x.rows, cols = x.cols;
  flatten(rows, cols,
          x.stride == cols && codes_stride == cols && is_scalar(scales) &&
              (!stochastic || index.row_stride == static_cast<uint64_t>(cols)));
  for_each_run(
      rows, cols, scales, [&](int64_t r, int64_t c, int64_t n, float scale) __attribute__((always_inline)) {
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
  with_element(x.dtype, [&]<class From> { encode<From>(x, scales, lowest, codes, codes_stride, rounding, index); });
}

}  // namespace mezzotint::kernel
