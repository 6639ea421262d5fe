#pragma once
#include "mezzotint/kernel/cuda/device/elements.h"

/// Codes under float32 scales: largest magnitudes, scales from these, codes from values, values from codes.
namespace mezzotint::kernel::cuda::device {

/// A row-major matrix; `stride` elements from one row to the next.
struct Values {
  const void* data;
  uint32_t rows, cols;
  int64_t stride;
};

/// As kernel::Scales: one number for every block of a matrix, a block size of 0 meaning the whole dimension.
struct BlockScales {
  const float* data;
  uint32_t block_rows, block_cols;
  int64_t stride;

  MEZZOTINT_DEVICE const float* row(uint32_t r) const {
    return block_rows == 0 ? data : data + static_cast<int64_t>(r / block_rows) * stride;
  }
};

/// Steps through the scales of a run of columns.
class ScaleWalk {
 public:
  MEZZOTINT_DEVICE ScaleWalk(const BlockScales& scales, uint32_t row, uint32_t col)
      : at_(scales.row(row)), width_(scales.block_cols), left_(0xFFFFFFFFu) {
    if (width_ == 0) return;
    at_ += col / width_;
    left_ = width_ - col % width_;
  }
  MEZZOTINT_DEVICE float next() {
    if (left_ == 0) {
      ++at_;
      left_ = width_;
    }
    if (width_ != 0) --left_;
    return *at_;
  }

 private:
  const float* at_;
  uint32_t width_, left_;
};

/// Where a thread of an element-wise kernel works: kRun consecutive columns of one row.
struct Place {
  uint32_t row, col, count;  ///< count = 0: nothing to do
};
MEZZOTINT_DEVICE Place place_of(uint32_t index, uint32_t rows, uint32_t cols) {
  const uint32_t runs = (cols + kRun - 1) / kRun;
  const uint32_t row = index / runs, col = index % runs * kRun;
  return {row, col, row < rows ? smaller(kRun, cols - col) : 0};
}
/// Blocks for it; the host sees to it that the number of runs fits 31 bits.
inline Grid element_grid(uint32_t rows, uint32_t cols, uint32_t threads) {
  const uint64_t runs = uint64_t{(cols + kRun - 1) / kRun} * rows;
  return {static_cast<uint32_t>((runs + threads - 1) / threads), 1};
}

/// Largest finite magnitude of every block of a matrix, as float32 bits, into memory that the caller zeroed. A block of
/// threads takes a piece of one scale block, at most tile_rows x tile_cols; pieces meet in an atomic maximum, which is
/// exact in any order.
struct AmaxArgs {
  Values x;
  uint32_t block_rows, block_cols;    ///< of the matrix, not 0
  uint32_t tile_rows, tile_cols;      ///< of a piece, at most the block
  uint32_t tiles_down, tiles_across;  ///< pieces per scale block
  uint32_t blocks_across;
  uint32_t* out;
  int64_t out_stride;
  uint32_t* non_finite;  ///< set to 1 where an inf or NaN was seen; or null
};

template <class Element>
struct AmaxBlocks {
  using Args = AmaxArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  struct Shared {
    uint32_t top[kThreads / kWarp];
  };

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared& shared) {
    const uint32_t piece_across = m.block_x() % (a.blocks_across * a.tiles_across);
    const uint32_t piece_down = m.block_x() / (a.blocks_across * a.tiles_across);
    const uint32_t bc = piece_across / a.tiles_across, br = piece_down / a.tiles_down;
    const uint32_t c0 = bc * a.block_cols + piece_across % a.tiles_across * a.tile_cols;
    const uint32_t r0 = br * a.block_rows + piece_down % a.tiles_down * a.tile_rows;
    const uint32_t c1 = smaller(smaller(c0 + a.tile_cols, (bc + 1) * a.block_cols), a.x.cols);
    const uint32_t r1 = smaller(smaller(r0 + a.tile_rows, (br + 1) * a.block_rows), a.x.rows);

    uint32_t top = 0;
    bool non_finite = false;
    if (c0 < c1 && r0 < r1) {
      const auto* data = static_cast<const typename Element::Stored*>(a.x.data);
      const uint32_t runs = (c1 - c0 + kRun - 1) / kRun;
      for (uint32_t i = m.thread(); i < runs * (r1 - r0); i += kThreads) {
        const uint32_t r = r0 + i / runs, c = c0 + i % runs * kRun;
        float v[kRun];
        load_run<Element>(data + r * a.x.stride + c, smaller(kRun, c1 - c), v);
        MEZZOTINT_UNROLL
        for (uint32_t j = 0; j < kRun; ++j) {
          const uint32_t x = finite_magnitude(v[j], non_finite);
          top = x > top ? x : top;
        }
      }
    }
    top = m.warp_max(top, kWarp);
    if (m.thread() % kWarp == 0) shared.top[m.thread() / kWarp] = top;
    m.sync();
    if (m.thread() == 0) {
      for (uint32_t w = 0; w < kThreads / kWarp; ++w) top = shared.top[w] > top ? shared.top[w] : top;
      m.atomic_max(a.out + br * a.out_stride + bc, top);
    }
    if (non_finite && a.non_finite != nullptr) m.atomic_max(a.non_finite, 1);
  }
};

/// How a scale follows from the largest magnitude; cuda/codec.h says what each is for.
enum class ScaleRule : uint32_t { divide, divide_floor, clamped_ratio, reciprocal, fp4_tensor };

MEZZOTINT_DEVICE float scale_of(ScaleRule rule, float amax, float largest, float floor) {
  const float clamped = amax > floor ? amax : floor;
  if (rule == ScaleRule::clamped_ratio) return clamped / largest;
  if (rule == ScaleRule::reciprocal) return 1.0f / (largest * (1.0f / clamped));
  const float scale = amax / largest;
  if (rule == ScaleRule::divide_floor) return scale > floor ? scale : floor;
  if (amax == 0.0f) return 1.0f;
  if (rule == ScaleRule::fp4_tensor) {
    const bool holds = float_bits(6.0f * (448.0f * scale)) < static_cast<uint32_t>(kFloatInfBits);
    const uint32_t bits = float_bits(scale) - (holds ? 0 : 1);
    return float_from_bits(bits > 1 ? bits : 1);
  }
  // 1 / scale is finite above 2^-128.
  return scale > 0x1p-128f ? scale : 0x1p-126f;
}

struct ScaleArgs {
  float* scales;       ///< largest magnitudes in, scales out
  float* multipliers;  ///< 1 / scale, or null
  uint32_t count;
  ScaleRule rule;
  float largest, floor;
};

struct ScalesFromAmax {
  using Args = ScaleArgs;
  static constexpr int kThreads = 256, kMinBlocks = 1;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const uint32_t i = m.block_x() * kThreads + m.thread();
    if (i >= a.count) return;
    const float scale = scale_of(a.rule, a.scales[i], a.largest, a.floor);
    a.scales[i] = scale;
    if (a.multipliers != nullptr) a.multipliers[i] = 1.0f / scale;
  }
};

struct EncodeArgs {
  Values x;
  BlockScales scales;  ///< multipliers for FloatCode
  uint8_t* codes;
  int64_t codes_stride;
  int32_t lowest;                   ///< of IntegerCode
  uint64_t key, first, row_stride;  ///< stochastic: element (r, c) has the index first + r * row_stride + c
};

template <class Element, class Code, class Rounding>
struct Encode {
  using Args = EncodeArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const Place place = place_of(m.block_x() * kThreads + m.thread(), a.x.rows, a.x.cols);
    if (place.count == 0) return;
    float v[kRun];
    load_run<Element>(static_cast<const typename Element::Stored*>(a.x.data) + place.row * a.x.stride + place.col,
                      place.count, v);
    ScaleWalk scale(a.scales, place.row, place.col);
    typename Code::Run codes{};
    if constexpr (Rounding::kRandom) {
      RandomRun random(a.key, a.first + place.row * a.row_stride + place.col);
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i)
        if (i < place.count) codes.put(i, Code::encode(Code::scaled(v[i], scale.next()), a.lowest, random.next()));
    } else {
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i)
        if (i < place.count) codes.put(i, Code::encode(Code::scaled(v[i], scale.next()), a.lowest));
    }
    Code::store(a.codes + place.row * a.codes_stride, place.col, place.count, codes);
  }
};

struct DecodeArgs {
  const uint8_t* codes;
  uint32_t rows, cols;
  int64_t codes_stride;
  BlockScales scales;
  void* out;
  int64_t out_stride;
};

/// out = code * scale in float32, then rounded to the element type.
template <class Code, class Element>
struct Decode {
  using Args = DecodeArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const Place place = place_of(m.block_x() * kThreads + m.thread(), a.rows, a.cols);
    if (place.count == 0) return;
    const typename Code::Run codes = Code::load(a.codes + place.row * a.codes_stride, place.col, place.count);
    ScaleWalk scale(a.scales, place.row, place.col);
    float v[kRun] = {};
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i)
      if (i < place.count) v[i] = Code::decode(codes.get(i)) * scale.next();
    store_run<Element>(static_cast<typename Element::Stored*>(a.out) + place.row * a.out_stride + place.col,
                       place.count, v);
  }
};

}  // namespace mezzotint::kernel::cuda::device
