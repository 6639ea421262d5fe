#pragma once
#include "mezzotint/kernel/cuda/device/elements.h"

/// y[M, N] = x[M, K] * W[N, K]^T of int8 codes with float32 scales, accumulated in int32 by mma.m16n8k32.
namespace mezzotint::kernel::cuda::device {

struct GemmArgs {
  const int8_t* x;  ///< [m, k]
  const int8_t* w;  ///< [n, k]
  int64_t x_stride, w_stride;
  uint32_t m, n, k;
  /// Block-wise: [m, ceil(k / 128)] and [ceil(n / 128), ceil(k / 128)] in rows of scale_stride.
  /// Otherwise [m], and [n] or one (w_scale_step 0).
  const float* x_scales;
  const float* w_scales;
  int64_t x_scale_stride, w_scale_stride;
  uint32_t w_scale_step;
  const float* bias;  ///< [n], or null
  void* y;
  int64_t y_stride;
  bool packets;  ///< whether all 16-byte pieces of the rows of x and w are aligned
};

/// Eight warps, two down and four across, make a tile of 32 kDown x 128: each warp kDown x 4 products of 16 x 8. The
/// codes of kStages pieces of 64 columns are in shared memory, of which kStages - 1 are under way.
///
/// Block-wise, the sums of 128 columns are at most 2^21 in magnitude. The accumulators start at the bits of 1.5 * 2^23,
/// so that they are float32 numbers, 1.5 * 2^23 + sum, without a conversion.
template <class Out, bool kBlockwise, uint32_t kDown>
struct GemmInt8 {
  using Args = GemmArgs;
  static constexpr int kThreads = 256, kMinBlocks = kDown > 1 ? 1 : 2;
  static constexpr uint32_t kRows = 32 * kDown, kCols = 128, kPiece = 64, kStages = 3, kBlock = 128;
  static constexpr int32_t kMagicBits = 0x4B400000;
  static constexpr float kMagic = 12582912.0f;

  struct Shared {
    alignas(16) int8_t x[kStages][kRows * kPiece];
    alignas(16) int8_t w[kStages][kCols * kPiece];
  };

  static Grid grid(const Args& a) { return {(a.m + kRows - 1) / kRows * ((a.n + kCols - 1) / kCols), 1}; }

  /// 16-byte piece `chunk` (0 ... 3) of a row: rows that meet in one ldmatrix lie in different banks.
  MEZZOTINT_DEVICE static uint32_t place(uint32_t row, uint32_t chunk) {
    return row * kPiece + (chunk ^ (row / 2 % 4)) * 16;
  }

  template <class Machine>
  MEZZOTINT_DEVICE static void load(Machine& m, int8_t* shared, const int8_t* codes, int64_t stride, uint32_t row0,
                                    uint32_t rows, uint32_t tile_rows, uint32_t k0, const Args& a) {
    for (uint32_t i = m.thread(); i < tile_rows * 4; i += kThreads) {
      const uint32_t row = row0 + i / 4, k = k0 + i % 4 * 16;
      const uint32_t bytes = row < rows && k < a.k ? smaller(16, a.k - k) : 0;
      const int8_t* from = bytes != 0 ? codes + row * stride + k : codes;
      int8_t* to = shared + place(i / 4, i % 4);
      if (a.packets) {
        m.copy_async(to, from, bytes);
        continue;
      }
      Packet<16> packet;
      MEZZOTINT_UNROLL
      for (uint32_t word = 0; word < 4; ++word) {
        uint32_t bits = 0;
        for (uint32_t j = 0; j < 4 && 4 * word + j < bytes; ++j)
          bits |= static_cast<uint32_t>(static_cast<uint8_t>(from[4 * word + j])) << (8 * j);
        packet.word[word] = bits;
      }
      *reinterpret_cast<Packet<16>*>(to) = packet;
    }
  }

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared& shared) {
    // Tiles that share rows of x follow each other down eight tiles at a time: both operands stay in the cache.
    const uint32_t across = (a.n + kCols - 1) / kCols, down = (a.m + kRows - 1) / kRows;
    const uint32_t band = m.block_x() / (8 * across), inside = m.block_x() % (8 * across);
    const uint32_t band_rows = smaller(8, down - band * 8);
    const uint32_t m0 = (band * 8 + inside % band_rows) * kRows, n0 = inside / band_rows * kCols;

    const uint32_t warp = m.thread() / kWarp, lane = m.thread() % kWarp;
    const uint32_t warp_m = warp / 4 * (16 * kDown), warp_n = warp % 4 * 32;
    const uint32_t group = lane / 4, pair = lane % 4 * 2;

    int32_t sums[kDown][4][4];
    float totals[kDown][4][4];
    clear(sums);
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kDown; ++i) MEZZOTINT_UNROLL
    for (uint32_t j = 0; j < 4; ++j) MEZZOTINT_UNROLL
    for (uint32_t e = 0; e < 4; ++e) totals[i][j][e] = 0.0f;

    const uint32_t pieces = (a.k + kPiece - 1) / kPiece;
    for (uint32_t s = 0; s < kStages - 1; ++s) {
      if (s < pieces) load_both(m, shared, s, m0, n0, s, a);
      m.commit();
    }
    float x_scale[kDown][2] = {};
    float w_scale = 0;
    for (uint32_t piece = 0; piece < pieces; ++piece) {
      m.template wait<kStages - 2>();
      m.sync();  // this piece is there for everyone, and nobody reads the one before any more
      if (piece + kStages - 1 < pieces)
        load_both(m, shared, (piece + kStages - 1) % kStages, m0, n0, piece + kStages - 1, a);
      m.commit();

      if constexpr (kBlockwise) {
        if (piece % (kBlock / kPiece) == 0) {
          const uint32_t block = piece / (kBlock / kPiece);
          w_scale = a.w_scales[n0 / kBlock * a.w_scale_stride + block];
          MEZZOTINT_UNROLL
          for (uint32_t i = 0; i < kDown; ++i) MEZZOTINT_UNROLL
          for (uint32_t h = 0; h < 2; ++h) {
            const uint32_t row = m0 + warp_m + 16 * i + 8 * h + group;
            x_scale[i][h] = row < a.m ? a.x_scales[row * a.x_scale_stride + block] : 0.0f;
          }
        }
      }

      const int8_t* x = shared.x[piece % kStages];
      const int8_t* w = shared.w[piece % kStages];
      MEZZOTINT_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        uint32_t left[kDown][4], right[2][4];
        MEZZOTINT_UNROLL
        for (uint32_t i = 0; i < kDown; ++i)
          m.load_matrices(left[i], x + place(warp_m + 16 * i + lane / 8 % 2 * 8 + lane % 8, half * 2 + lane / 16));
        MEZZOTINT_UNROLL
        for (uint32_t j = 0; j < 2; ++j)
          m.load_matrices(right[j], w + place(warp_n + 16 * j + lane / 16 * 8 + lane % 8, half * 2 + lane / 8 % 2));
        MEZZOTINT_UNROLL
        for (uint32_t i = 0; i < kDown; ++i) MEZZOTINT_UNROLL
        for (uint32_t j = 0; j < 4; ++j)
          m.mma(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
      }

      if constexpr (kBlockwise) {
        if (piece % (kBlock / kPiece) != kBlock / kPiece - 1 && piece + 1 != pieces) continue;
        MEZZOTINT_UNROLL
        for (uint32_t i = 0; i < kDown; ++i) {
          const float scale[2] = {x_scale[i][0] * w_scale, x_scale[i][1] * w_scale};
          MEZZOTINT_UNROLL
          for (uint32_t j = 0; j < 4; ++j) MEZZOTINT_UNROLL
          for (uint32_t e = 0; e < 4; ++e) {
            const float sum = float_from_bits(static_cast<uint32_t>(sums[i][j][e])) - kMagic;
            totals[i][j][e] = m.fma(sum, scale[e / 2], totals[i][j][e]);
          }
        }
        clear(sums);
      }
    }

    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kDown; ++i) MEZZOTINT_UNROLL
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t row = m0 + warp_m + 16 * i + 8 * h + group;
      if (row >= a.m) continue;
      MEZZOTINT_UNROLL
      for (uint32_t j = 0; j < 4; ++j) {
        const uint32_t col = n0 + warp_n + 8 * j + pair;
        float v[2];
        MEZZOTINT_UNROLL
        for (uint32_t e = 0; e < 2; ++e) {
          if (col + e >= a.n) continue;
          if constexpr (kBlockwise) {
            v[e] = totals[i][j][2 * h + e];
          } else {
            v[e] = static_cast<float>(sums[i][j][2 * h + e]) * a.x_scales[row] * a.w_scales[(col + e) * a.w_scale_step];
          }
          if (a.bias != nullptr) v[e] = v[e] + a.bias[col + e];
        }
        store(static_cast<typename Out::Stored*>(a.y) + row * a.y_stride + col, v, col, a.n);
      }
    }
  }

 private:
  MEZZOTINT_DEVICE static void clear(int32_t (&sums)[kDown][4][4]) {
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kDown; ++i) MEZZOTINT_UNROLL
    for (uint32_t j = 0; j < 4; ++j) MEZZOTINT_UNROLL
    for (uint32_t e = 0; e < 4; ++e) sums[i][j][e] = kBlockwise ? kMagicBits : 0;
  }

  template <class Machine>
  MEZZOTINT_DEVICE static void load_both(Machine& m, Shared& shared, uint32_t stage, uint32_t m0, uint32_t n0,
                                         uint32_t piece, const Args& a) {
    load(m, shared.x[stage], a.x, a.x_stride, m0, a.m, kRows, piece * kPiece, a);
    load(m, shared.w[stage], a.w, a.w_stride, n0, a.n, kCols, piece * kPiece, a);
  }

  MEZZOTINT_DEVICE static void store(typename Out::Stored* y, const float (&v)[2], uint32_t col, uint32_t n) {
    constexpr int kBytes = 2 * sizeof(typename Out::Stored);
    if (col + 1 < n && aligned<kBytes>(y)) {
      Packet<kBytes> packet;
      if constexpr (kBytes == 8) {
        packet.word[0] = Out::store(v[0]);
        packet.word[1] = Out::store(v[1]);
      } else {
        packet.word[0] = Out::store(v[0]) | static_cast<uint32_t>(Out::store(v[1])) << 16;
      }
      *reinterpret_cast<Packet<kBytes>*>(y) = packet;
      return;
    }
    if (col < n) y[0] = Out::store(v[0]);
    if (col + 1 < n) y[1] = Out::store(v[1]);
  }
};

/// out[c, r] = x[r, c], 64 x 64 elements per block of threads: the other operand of g * W.
template <class Stored>
struct TransposeArgs {
  const Stored* x;
  uint32_t rows, cols;
  int64_t stride;
  Stored* out;
  int64_t out_stride;
};

template <class Stored>
struct Transpose {
  using Args = TransposeArgs<Stored>;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  static constexpr uint32_t kTile = 64;
  struct Shared {
    Stored tile[kTile][kTile + 4 / sizeof(Stored)];
  };

  static Grid grid(const Args& a) { return {(a.cols + kTile - 1) / kTile * ((a.rows + kTile - 1) / kTile), 1}; }

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared& shared) {
    const uint32_t across = (a.cols + kTile - 1) / kTile;
    const uint32_t r0 = m.block_x() / across * kTile, c0 = m.block_x() % across * kTile;
    for (uint32_t i = m.thread(); i < kTile * kTile; i += kThreads) {
      const uint32_t r = i / kTile, c = i % kTile;
      if (r0 + r < a.rows && c0 + c < a.cols) shared.tile[r][c] = a.x[(r0 + r) * a.stride + c0 + c];
    }
    m.sync();
    for (uint32_t i = m.thread(); i < kTile * kTile; i += kThreads) {
      const uint32_t c = i / kTile, r = i % kTile;
      if (r0 + r < a.rows && c0 + c < a.cols) a.out[(c0 + c) * a.out_stride + r0 + r] = shared.tile[r][c];
    }
  }
};

}  // namespace mezzotint::kernel::cuda::device
