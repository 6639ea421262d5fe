#include "mezzotint/kernel/int4.h"

#include "mezzotint/base/integer.h"
#include "mezzotint/kernel/nibbles.h"

namespace mezzotint::kernel {
namespace {

constexpr float kLowest = -7.0f, kHighest = 7.0f;

template <class From>
[[gnu::noinline]] void nearest_run(const typename From::Stored* __restrict x, int64_t n, float scale,
                                   Byte* __restrict q) {
  for (int64_t i = 0; i < n; ++i)
    q[i] = static_cast<uint8_t>(Int8::encode(From::load(x[i]) / scale, kLowest, kHighest));
}

template <class From>
[[gnu::noinline]] void stochastic_run(const typename From::Stored* __restrict x, int64_t n, float scale,
                                      Byte* __restrict q, const uint32_t* __restrict random) {
  for (int64_t i = 0; i < n; ++i)
    q[i] = static_cast<uint8_t>(Int8::encode_stochastic(From::load(x[i]) / scale, kLowest, kHighest, random[i]));
}

[[gnu::noinline]] void scale_run(const Byte* __restrict nibbles, int64_t n, float scale, Dword* __restrict out) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = static_cast<int32_t>(nibbles[i] ^ 8u) - 8;
    out[i] = float_bits(static_cast<float>(code) * scale);
  }
}

/// values[2j], values[2j + 1] = the codes of codes[j].
[[gnu::noinline]] void signed_pairs(const Byte* __restrict codes, int64_t pairs, Byte* __restrict values) {
  Word* pair = reinterpret_cast<Word*>(values);
  for (int64_t j = 0; j < pairs; ++j) {
    const uint32_t both = codes[j], two = (both | both << 4) & 0x0F0F;
    pair[j] = static_cast<uint16_t>(two | (two & 0x0808) * 0x1E);  // the sign up to the byte's top
  }
}

template <class From>
void encode(const Source& x, const Scales& scales, Byte* codes, int64_t codes_stride, int64_t col0,
            const Rounding& rounding, const ElementIndex& index) {
  const auto* data = static_cast<const typename From::Stored*>(x.data);
  const bool stochastic = rounding.mode == Rounding::Mode::stochastic;
  for_each_run(x.rows, x.cols, scales, [&](int64_t r, int64_t c, int64_t n, float scale) {
    alignas(64) Byte values[kNibbleChunk];
    RandomChunk chunk;
    static_assert(RandomChunk::kCount == kNibbleChunk);
    for (int64_t i = 0; i < n; i += kNibbleChunk) {
      const int64_t count = smaller(n - i, kNibbleChunk);
      const auto* from = data + r * x.stride + c + i;
      if (stochastic) {
        const uint64_t first = index.first + static_cast<uint64_t>(r) * index.row_stride + static_cast<uint64_t>(c + i);
        stochastic_run<From>(from, count, scale, values, fill_random(rounding.key, first, count, chunk));
      } else {
        nearest_run<From>(from, count, scale, values);
      }
      pack_columns(values, count, col0 + c + i, codes + r * codes_stride);
    }
  });
}

}  // namespace

template <>
void encode_int4<kIsa>(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, int64_t col0,
                       const Rounding& rounding, const ElementIndex& index) {
  with_element(x.dtype, [&]<class From> { encode<From>(x, scales, codes, codes_stride, col0, rounding, index); });
}

template <>
void decode_int4<kIsa>(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, int64_t col0,
                       const Scales& scales, float* out, int64_t out_stride) {
  for_each_run(rows, cols, scales, [&](int64_t r, int64_t c, int64_t n, float scale) {
    alignas(64) Byte values[kNibbleChunk];
    for (int64_t i = 0; i < n; i += kNibbleChunk) {
      const int64_t count = smaller(n - i, kNibbleChunk);
      unpack_columns(codes + r * codes_stride, count, col0 + c + i, values);
      scale_run(values, count, scale, reinterpret_cast<Dword*>(out) + r * out_stride + c + i);
    }
  });
}

template <>
void unpack_int4<kIsa>(const uint8_t* codes, int64_t cols, int8_t* values) {
  signed_pairs(codes, cols >> 1, reinterpret_cast<Byte*>(values));
  if ((cols & 1) != 0) values[cols - 1] = static_cast<int8_t>(static_cast<int8_t>(codes[cols >> 1] << 4) >> 4);
}

template <>
void pack_nibbles<kIsa>(const uint8_t* values, int64_t cols, int64_t col0, uint8_t* codes) {
  pack_columns(values, cols, col0, codes);
}

template <>
void unpack_nibbles<kIsa>(const uint8_t* codes, int64_t cols, int64_t col0, uint8_t* values) {
  unpack_columns(codes, cols, col0, values);
}

}  // namespace mezzotint::kernel
