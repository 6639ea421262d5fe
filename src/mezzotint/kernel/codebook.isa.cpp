#include "mezzotint/kernel/codebook.h"

#include "mezzotint/kernel/codebook_levels.h"
#include "mezzotint/kernel/nibbles.h"

namespace mezzotint::kernel {
namespace {

/// Bits 4 and 5 of every value, four to a byte.
void pack_high(const Byte* values, int64_t cols, int64_t col0, Byte* high) {
  int64_t i = 0;
  const auto one = [&] {
    const int64_t col = col0 + i;
    const int shift = static_cast<int>(col & 3) * 2;
    Byte& four = high[col >> 2];
    four = static_cast<uint8_t>((four & ~(3 << shift)) | (values[i] >> 4 & 3) << shift);
  };
  for (; i < cols && ((col0 + i) & 3) != 0; ++i) one();
  const Dword* from = reinterpret_cast<const Dword*>(values + i);
  Byte* to = high + ((col0 + i) >> 2);
  const int64_t quads = (cols - i) >> 2;
  for (int64_t j = 0; j < quads; ++j) {
    const uint32_t v = from[j] & 0x30303030u;
    to[j] = static_cast<uint8_t>(v >> 4 | v >> 10 | v >> 16 | v >> 22);
  }
  for (i += quads * 4; i < cols; ++i) one();
}
void add_high(const Byte* high, int64_t cols, int64_t col0, Byte* values) {
  int64_t i = 0;
  const auto one = [&] {
    const int64_t col = col0 + i;
    values[i] = static_cast<uint8_t>(values[i] | (high[col >> 2] >> ((col & 3) * 2) & 3) << 4);
  };
  for (; i < cols && ((col0 + i) & 3) != 0; ++i) one();
  const Byte* from = high + ((col0 + i) >> 2);
  Dword* to = reinterpret_cast<Dword*>(values + i);
  const int64_t quads = (cols - i) >> 2;
  for (int64_t j = 0; j < quads; ++j) {
    const uint32_t b = from[j];
    to[j] |= (b & 3) << 4 | (b & 0xC) << 10 | (b & 0x30) << 16 | (b & 0xC0) << 22;
  }
  for (i += quads * 4; i < cols; ++i) one();
}

/// Calls f(first, count, index of the relative scale, correction) for every part of columns [col0, col0 + cols) of a
/// row that one group holds; `first` counts from col0.
template <class F>
[[gnu::always_inline]] inline void for_each_group(const LevelCodes& how, const LevelScales& scales, int64_t row,
                                                  int64_t col0, int64_t cols, F&& f) {
  int64_t g = col0 / how.group;
  for (int64_t c = 0; c < cols; ++g) {
    const int64_t end = smaller((g + 1) * how.group - col0, cols);
    f(c, end - c, row * how.groups() + g,
      scales.correction == nullptr ? 0.0f : scales.correction[g * scales.rows + row]);
    c = end;
  }
}

/// Codes of one row as bytes. `random` holds one number per column, or is null.
template <int kCount>
[[gnu::noinline]] void encode_row(const float* x, int64_t cols, const LevelCodes& how, const LevelScales& scales,
                                  int64_t row, int64_t col0, const uint32_t* random, Byte* values) {
  const float* base = kCount == 64 ? kSixBits.base : how.base;
  const float channel = scales.channel[row];
  LevelTable<kCount> table;
  for_each_group(how, scales, row, col0, cols, [&](int64_t c, int64_t n, int64_t scale, float correction) {
    table.set(base, relative_at(scales, scale));
    for (int64_t i = 0; i < n; i += kLanes) {
      const Lanes t = on_grid(load_some(x + c + i, n - i), correction, channel);
      Lanes level;
      Indices code = table.nearest(t, level);
      if (random != nullptr) {
        alignas(64) float u[kLanes] = {};
        for (int64_t k = 0; k < smaller(n - i, int64_t{kLanes}); ++k)
          u[k] = static_cast<float>(static_cast<int32_t>(random[c + i + k] >> 8)) * 0x1p-24f;
        code = table.stochastic(t, load_lanes(u));
      }
      if (kCount == 64) code = plus(code, 1);
      if (n - i >= kLanes) {
        store_indices(code, values + c + i);
      } else {
        Byte some[kLanes];
        store_indices(code, some);
        for (int64_t k = 0; k < n - i; ++k) values[c + i + k] = some[k];
      }
    }
  });
}

template <int kCount>
[[gnu::noinline]] void decode_row(const Byte* values, int64_t cols, const LevelCodes& how, const LevelScales& scales,
                                  int64_t row, int64_t col0, float* out) {
  const float channel = scales.channel[row];
  for_each_group(how, scales, row, col0, cols, [&](int64_t c, int64_t n, int64_t scale, float correction) {
    const float relative = relative_at(scales, scale);
    for (int64_t i = 0; i < n; i += kLanes) {
      Byte some[kLanes] = {};
      const Byte* from = values + c + i;
      if (n - i < kLanes) {
        for (int64_t k = 0; k < n - i; ++k) some[k] = from[k];
        from = some;
      }
      const Indices code = load_indices(from);
      const Lanes base = kCount == 64 ? to_lanes(code) - 32.0f : look_up<16>(how.base, code);
      const Lanes level = whole(base * relative, -kGridTop, kGridTop);
      const Lanes value = level * channel + all_lanes(correction);
      if (n - i >= kLanes) {
        store_lanes(value, out + c + i);
      } else {
        alignas(64) float tail[kLanes];
        store_lanes(value, tail);
        for (int64_t k = 0; k < n - i; ++k) out[c + i + k] = tail[k];
      }
    }
  });
}

}  // namespace

template <>
void encode_levels<kIsa>(const Source& x, const LevelCodes& how, const LevelScales& scales, int64_t row0, int64_t col0,
                         uint8_t* codes, int64_t codes_stride, const Rounding& rounding, const ElementIndex& index) {
  alignas(64) Byte values[kNibbleChunk];
  RandomChunk chunk;
  static_assert(RandomChunk::kCount == kNibbleChunk);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = static_cast<const float*>(x.data) + r * x.stride;
    Byte* to = codes + r * codes_stride;
    for (int64_t c = 0; c < x.cols; c += kNibbleChunk) {
      const int64_t n = smaller(x.cols - c, kNibbleChunk);
      const uint32_t* random = nullptr;
      if (rounding.mode == Rounding::Mode::stochastic)
        random =
            fill_random(rounding.key,
                        index.first + static_cast<uint64_t>(r) * index.row_stride + static_cast<uint64_t>(c), n, chunk);
      if (how.bits == 6) {
        encode_row<64>(row + c, n, how, scales, row0 + r, col0 + c, random, values);
        pack_high(values, n, col0 + c, to + how.cols / 2);
      } else {
        encode_row<16>(row + c, n, how, scales, row0 + r, col0 + c, random, values);
      }
      pack_columns(values, n, col0 + c, to);
    }
  }
}

template <>
void decode_levels<kIsa>(const uint8_t* codes, int64_t codes_stride, const LevelCodes& how, const LevelScales& scales,
                         int64_t row0, int64_t rows, int64_t col0, int64_t cols, float* out, int64_t out_stride) {
  alignas(64) Byte values[kNibbleChunk];
  for (int64_t r = 0; r < rows; ++r) {
    const Byte* from = codes + r * codes_stride;
    float* to = out + r * out_stride;
    for (int64_t c = 0; c < cols; c += kNibbleChunk) {
      const int64_t n = smaller(cols - c, kNibbleChunk);
      unpack_columns(from, n, col0 + c, values);
      if (how.bits == 6) {
        add_high(from + how.cols / 2, n, col0 + c, values);
        decode_row<64>(values, n, how, scales, row0 + r, col0 + c, to + c);
      } else {
        decode_row<16>(values, n, how, scales, row0 + r, col0 + c, to + c);
      }
    }
  }
}

}  // namespace mezzotint::kernel
