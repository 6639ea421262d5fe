#pragma once
#include "mezzotint/kernel/cuda/device/codec.h"

/// Two codes in a byte, the even column in the low nibble.
namespace mezzotint::kernel::cuda::device {

/// A run of up to 8 codes, code i in nibble i.
struct NibbleRun {
  uint32_t word;
  MEZZOTINT_DEVICE uint32_t get(uint32_t i) const { return word >> (4 * i) & 0xF; }
  MEZZOTINT_DEVICE void put(uint32_t i, uint32_t code) { word |= (code & 0xF) << (4 * i); }
};

/// Stores `count` (even, at most kRun) nibbles for columns col ....
MEZZOTINT_DEVICE void store_nibbles(uint8_t* row, uint32_t col, uint32_t count, const NibbleRun& run) {
  uint8_t* p = row + col / 2;
  if (count == kRun && aligned<4>(p)) {
    reinterpret_cast<Packet<4>*>(p)->word[0] = run.word;
    return;
  }
  MEZZOTINT_UNROLL
  for (uint32_t i = 0; i < kRun / 2; ++i)
    if (2 * i < count) p[i] = static_cast<uint8_t>(run.word >> (8 * i));
}

MEZZOTINT_DEVICE NibbleRun load_nibbles(const uint8_t* row, uint32_t col, uint32_t count) {
  const uint8_t* p = row + col / 2;
  if (count == kRun && aligned<4>(p)) return {reinterpret_cast<const Packet<4>*>(p)->word[0]};
  NibbleRun run{};
  MEZZOTINT_UNROLL
  for (uint32_t i = 0; i < kRun / 2; ++i)
    if (2 * i < count) run.word |= static_cast<uint32_t>(p[i]) << (8 * i);
  return run;
}

/// Signed 4-bit integers, +-7: code = clamp(rint(x / scale), -7, 7).
struct Int4Code {
  using Run = NibbleRun;
  MEZZOTINT_DEVICE static Run load(const uint8_t* row, uint32_t col, uint32_t count) {
    return load_nibbles(row, col, count);
  }
  MEZZOTINT_DEVICE static void store(uint8_t* row, uint32_t col, uint32_t count, const Run& run) {
    store_nibbles(row, col, count, run);
  }
  MEZZOTINT_DEVICE static float scaled(float x, float scale) { return x / scale; }
  MEZZOTINT_DEVICE static uint32_t encode(float y, int32_t) {
    return static_cast<uint32_t>(Int8::encode(y, -7.0f, 7.0f));
  }
  MEZZOTINT_DEVICE static uint32_t encode(float y, int32_t, uint32_t random) {
    return static_cast<uint32_t>(Int8::encode_stochastic(y, -7.0f, 7.0f, random));
  }
  MEZZOTINT_DEVICE static float decode(uint32_t code) {
    return static_cast<float>(static_cast<int32_t>(code << 28) >> 28);
  }
};

/// Unsigned 4-bit codes on the int8 grid of their channel: i8 = clamp(rint(level * relative), -127, 127) with the
/// codebook's level, or code - 8 without one.
struct CodebookArgs {
  uint8_t* codes;  ///< [rows, cols / 2]
  uint32_t rows, cols;
  uint32_t group;           ///< columns that share a relative scale, a multiple of kRun
  const uint8_t* relative;  ///< e4m3 [rows, cols / group]
  const float* channel;     ///< [rows]
  const float* codebook;    ///< [16] ascending, or null
  const float* correction;  ///< [cols / group, rows] added to the value, or null
  const void* x;            ///< encode: float32 [rows, cols]; decode: the result, of the element type
  int64_t stride;
  uint64_t key, first, row_stride;
};

MEZZOTINT_DEVICE float grid_level(const float* codebook, uint32_t code, float relative) {
  const float level = codebook != nullptr ? codebook[code] : static_cast<float>(static_cast<int32_t>(code) - 8);
  return static_cast<float>(Int8::encode(level * relative, -127.0f, 127.0f));
}

template <class Element>
struct DecodeCodebook {
  using Args = CodebookArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const Place place = place_of(m.block_x() * kThreads + m.thread(), a.rows, a.cols);
    if (place.count == 0) return;
    const uint32_t groups = a.cols / a.group, g = place.col / a.group;
    const float relative = E4m3::decode(a.relative[static_cast<uint64_t>(place.row) * groups + g]);
    const float channel = a.channel[place.row];
    const NibbleRun codes =
        load_nibbles(a.codes + static_cast<uint64_t>(place.row) * (a.cols / 2), place.col, place.count);
    float v[kRun];
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i) v[i] = grid_level(a.codebook, codes.get(i), relative) * channel;
    if (a.correction != nullptr) {
      const float offset = a.correction[static_cast<uint64_t>(g) * a.rows + place.row];
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) v[i] = v[i] + offset;
    }
    store_run<Element>(
        static_cast<typename Element::Stored*>(const_cast<void*>(a.x)) + place.row * a.stride + place.col, place.count,
        v);
  }
};

/// The nearest level to (x - correction) / channel, of two equally near ones the lower code; or, stochastically, one of
/// the two around it. Beyond +-512 levels cannot be told apart; NaN counts as 0.
template <class Rounding>
struct EncodeCodebook {
  using Args = CodebookArgs;
  static constexpr int kThreads = 256, kMinBlocks = 2;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const Place place = place_of(m.block_x() * kThreads + m.thread(), a.rows, a.cols);
    if (place.count == 0) return;
    const uint32_t groups = a.cols / a.group, g = place.col / a.group;
    const float relative = E4m3::decode(a.relative[static_cast<uint64_t>(place.row) * groups + g]);
    const float channel = a.channel[place.row];
    const float correction = a.correction != nullptr ? a.correction[static_cast<uint64_t>(g) * a.rows + place.row] : 0;
    float v[kRun];
    uint32_t codes[kRun] = {};
    load_run<F32>(static_cast<const uint32_t*>(a.x) + place.row * a.stride + place.col, place.count, v);
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i) {
      const float t = (v[i] - correction) / channel;
      const float number = t == t ? t : 0.0f;
      const float above = number < -512.0f ? -512.0f : number;
      v[i] = above > 512.0f ? 512.0f : above;
    }
    if constexpr (Rounding::kRandom) {
      for (uint32_t code = 1; code < 15; ++code) {
        const float level = grid_level(a.codebook, code, relative);
        MEZZOTINT_UNROLL
        for (uint32_t i = 0; i < kRun; ++i) codes[i] = level < v[i] ? code : codes[i];
      }
      RandomRun random(a.key, a.first + place.row * a.row_stride + place.col);
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) {
        const float lower = grid_level(a.codebook, codes[i], relative);
        const float upper = grid_level(a.codebook, codes[i] + 1, relative);
        const float u = static_cast<float>(static_cast<int32_t>(random.next() >> 8)) * 0x1p-24f;
        codes[i] += v[i] > lower + u * (upper - lower) ? 1 : 0;
      }
    } else {
      // The upper of two levels is nearer above the middle between them.
      float lower = grid_level(a.codebook, 0, relative);
      for (uint32_t code = 1; code < 16; ++code) {
        const float upper = grid_level(a.codebook, code, relative);
        const float middle = (lower + upper) * 0.5f;
        MEZZOTINT_UNROLL
        for (uint32_t i = 0; i < kRun; ++i) codes[i] = middle < v[i] ? code : codes[i];
        lower = upper;
      }
      // Around 0 the differences are rounded: what is nearer may still differ by the same number.
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) {
        const uint32_t below = codes[i] > 0 ? codes[i] - 1 : 0;
        const float found = grid_level(a.codebook, codes[i], relative), other = grid_level(a.codebook, below, relative);
        const bool tie = other < found && magnitude(v[i] - found) >= magnitude(v[i] - other);
        codes[i] = tie ? below : codes[i];
      }
    }
    NibbleRun run{};
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i) run.put(i, codes[i]);
    store_nibbles(a.codes + static_cast<uint64_t>(place.row) * (a.cols / 2), place.col, place.count, run);
  }

 private:
  MEZZOTINT_DEVICE static float magnitude(float x) { return x < 0.0f ? -x : x; }
};

}  // namespace mezzotint::kernel::cuda::device
