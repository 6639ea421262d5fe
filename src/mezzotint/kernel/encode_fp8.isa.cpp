#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_fp8.h"

namespace mezzotint::kernel {
namespace {

template <class From, class To>
[[gnu::always_inline]] inline void nearest_run(const typename From::Stored* __restrict x, int64_t n, float multiplier,
                                               Byte* __restrict q) {
  int64_t i = 0;
#if defined(MEZZOTINT_FP8_VECTORS)
  if constexpr (__is_same(From, Bf16Element)) i = encode_steps<To>(x, n, multiplier, q);
#endif
  for (; i < n; ++i) q[i] = static_cast<uint8_t>(To::encode_saturating(From::load(x[i]) * multiplier));
}

template <class From, class To>
[[gnu::noinline]] void stochastic_run(const typename From::Stored* __restrict x, int64_t n, float multiplier,
                                      Byte* __restrict q, const uint32_t* __restrict random) {
  for (int64_t i = 0; i < n; ++i)
    q[i] = static_cast<uint8_t>(To::encode_stochastic(From::load(x[i]) * multiplier, random[i]));
}

/// Whole runs of columns that share a multiplier, in one go for every row; false where they cannot be.
template <class From, class To>
bool encode_rows([[maybe_unused]] const Source& x, [[maybe_unused]] const Scales& multipliers,
                 [[maybe_unused]] Byte* codes, [[maybe_unused]] int64_t codes_stride) {
#if defined(MEZZOTINT_FP8_VECTORS)
  if constexpr (__is_same(From, Bf16Element)) {
    const int64_t run = multipliers.block_cols / kFp8Step;
    if (run < 1 || run > kFp8Steps || multipliers.block_rows < 1 || multipliers.block_cols % kFp8Step != 0 ||
        multipliers.col0 % multipliers.block_cols != 0 || x.cols % kFp8Step != 0)
      return false;
    const float* first = multipliers.data + multipliers.col0 / multipliers.block_cols;
    for (int64_t r = 0; r < x.rows; ++r)
      encode_runs<To>(static_cast<const Word*>(x.data) + r * x.stride, x.cols / kFp8Step,
                      first + (multipliers.row0 + r) / multipliers.block_rows * multipliers.stride, run,
                      codes + r * codes_stride);
    return true;
  }
#endif
  return false;
}

template <class From, class To>
void encode(const Source& x, const Scales& multipliers, uint8_t* codes, int64_t codes_stride, const Rounding& rounding,
            const ElementIndex& index) {
  const auto* data = static_cast<const typename From::Stored*>(x.data);
  const bool stochastic = rounding.mode == Rounding::Mode::stochastic;
  if (!stochastic && encode_rows<From, To>(x, multipliers, codes, codes_stride)) return;
  int64_t rows = x.rows, cols = x.cols;
  flatten(rows, cols,
          x.stride == cols && codes_stride == cols && is_scalar(multipliers) &&
              (!stochastic || index.row_stride == static_cast<uint64_t>(cols)));
  for_each_run(rows, cols, multipliers, [&](int64_t r, int64_t c, int64_t n, float multiplier) {
    const auto* from = data + r * x.stride + c;
    Byte* to = codes + r * codes_stride + c;
    if (!stochastic) return nearest_run<From, To>(from, n, multiplier, to);
    const uint64_t first = index.first + static_cast<uint64_t>(r) * index.row_stride + static_cast<uint64_t>(c);
    RandomChunk chunk;
    for (int64_t i = 0; i < n; i += RandomChunk::kCount) {
      const int64_t count = smaller(n - i, RandomChunk::kCount);
      const uint32_t* random = fill_random(rounding.key, first + static_cast<uint64_t>(i), count, chunk);
      stochastic_run<From, To>(from + i, count, multiplier, to + i, random);
    }
  });
}

}  // namespace

template <>
void encode_fp8<kIsa>(const Source& x, const Scales& multipliers, DType to, uint8_t* codes, int64_t codes_stride,
                      const Rounding& rounding, const ElementIndex& index) {
  with_element(x.dtype, [&]<class From> {
    if (to == DType::f8_e4m3) {
      encode<From, E4m3>(x, multipliers, codes, codes_stride, rounding, index);
    } else {
      encode<From, E5m2>(x, multipliers, codes, codes_stride, rounding, index);
    }
  });
}

}  // namespace mezzotint::kernel
