#pragma once
#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/kernel/cuda/device/codec.h"

/// Groups of consecutive values within a row that share a scale, quantized in one pass: the scale is chosen and the
/// codes are written while the values are in registers. kRun values per lane, group / kRun lanes per group.
namespace mezzotint::kernel::cuda::device {

/// Byte of the block scale (row, col) in the layout that cuBLASLt reads (tiles of 128 x 4 scales, 512 bytes each).
MEZZOTINT_DEVICE uint64_t blocked_offset(uint32_t row, uint32_t col, uint32_t cols) {
  const uint64_t tile = uint64_t{row / 128} * ((cols + 3) / 4) + col / 4;
  return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + col % 4;
}

struct GroupArgs {
  Values x;
  uint32_t padded_rows, padded_cols;  ///< of the codes; what lies beyond x counts as zeros
  const float* tensor_scale;          ///< of the whole weight (4-bit floats), or null
  uint8_t* codes;
  int64_t codes_stride;  ///< bytes
  void* scales;
  float floor;  ///< of integer scales
  uint64_t key, first, row_stride;
};

/// What the two micro-scaled formats have in common: padding, and one-byte scales in tiles.
template <uint32_t kSize>
struct MicroGroup {
  static constexpr uint32_t kGroup = kSize;
  static constexpr bool kPadded = true;
  struct Scale {
    uint32_t code;
    float step;
  };
  MEZZOTINT_DEVICE static void store_scale(const GroupArgs& a, uint32_t row, uint32_t group, const Scale& s) {
    static_cast<uint8_t*>(a.scales)[blocked_offset(row, group, a.padded_cols / kGroup)] = static_cast<uint8_t>(s.code);
  }
};

/// 4-bit floats with an e4m3 scale for 16 under a float32 scale for all (README of the format).
struct MicroFp4 : MicroGroup<16> {
  MEZZOTINT_DEVICE static Scale scale(float amax, const GroupArgs& a) {
    const float global = *a.tensor_scale;
    const uint32_t code = E4m3::encode_saturating(amax / 6.0f / global);
    return {code, global * E4m3::decode(code)};
  }
  MEZZOTINT_DEVICE static uint32_t encode(float x, const Scale& s) {
    return s.step == 0.0f ? 0 : E2m1::encode(x / s.step);
  }
  MEZZOTINT_DEVICE static uint32_t encode(float x, const Scale& s, uint32_t random) {
    return s.step == 0.0f ? 0 : E2m1::encode_stochastic(x / s.step, random);
  }
  /// The even column is the high nibble of its byte.
  MEZZOTINT_DEVICE static void store(const GroupArgs& a, uint32_t row, uint32_t col, uint32_t, const uint32_t (&c)[8]) {
    uint32_t word = 0;
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i) word |= c[i] << (i / 2 * 8 + (i % 2 == 0 ? 4 : 0));
    reinterpret_cast<Packet<4>*>(a.codes + row * a.codes_stride + col / 2)->word[0] = word;
  }
};

/// e4m3 with a power of two for 32.
struct MicroFp8 : MicroGroup<32> {
  /// Code 0 means 0.0 and is for blocks of zeros alone (kernel/mx.h).
  MEZZOTINT_DEVICE static Scale scale(float amax, const GroupArgs&) {
    if (amax == 0.0f) return {0, 0.0f};
    const uint32_t above = E8m0::encode_ceil(amax / 448.0f);
    const uint32_t code = above > 1 ? above : 1;
    return {code, E8m0::decode(code)};
  }
  MEZZOTINT_DEVICE static uint32_t encode(float x, const Scale& s) {
    return s.code == 0 ? 0 : E4m3::encode_saturating(x / s.step);
  }
  MEZZOTINT_DEVICE static uint32_t encode(float x, const Scale& s, uint32_t random) {
    return s.code == 0 ? 0 : E4m3::encode_stochastic(x / s.step, random);
  }
  MEZZOTINT_DEVICE static void store(const GroupArgs& a, uint32_t row, uint32_t col, uint32_t count,
                                     const uint32_t (&c)[8]) {
    CodeRun codes{};
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i) codes.put(i, c[i]);
    store_codes(a.codes + row * a.codes_stride + col, count, codes);
  }
};

/// int8 with a float32 scale for 128: activations of the block-wise product.
struct GroupInt8 {
  static constexpr uint32_t kGroup = 128;
  static constexpr bool kPadded = false;
  using Scale = float;
  MEZZOTINT_DEVICE static Scale scale(float amax, const GroupArgs& a) {
    return scale_of(ScaleRule::divide_floor, amax, 127.0f, a.floor);
  }
  MEZZOTINT_DEVICE static void store_scale(const GroupArgs& a, uint32_t row, uint32_t group, Scale s) {
    static_cast<float*>(a.scales)[static_cast<uint64_t>(row) * (a.padded_cols / kGroup) + group] = s;
  }
  MEZZOTINT_DEVICE static uint32_t encode(float x, Scale s) { return IntegerCode::encode(x / s, -127); }
  MEZZOTINT_DEVICE static uint32_t encode(float x, Scale s, uint32_t random) {
    return IntegerCode::encode(x / s, -127, random);
  }
  MEZZOTINT_DEVICE static void store(const GroupArgs& a, uint32_t row, uint32_t col, uint32_t count,
                                     const uint32_t (&c)[8]) {
    MicroFp8::store(a, row, col, count, c);
  }
};

template <class Element, class Group, class Rounding>
struct QuantizeGroups {
  using Args = GroupArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  static constexpr uint32_t kLanes = Group::kGroup / kRun;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const Place place = place_of(m.block_x() * kThreads + m.thread(), a.padded_rows, a.padded_cols);
    const bool inside = place.row < a.x.rows && place.col < a.x.cols;
    const uint32_t count = inside ? smaller(kRun, a.x.cols - place.col) : 0;
    float v[kRun] = {};
    if (count != 0)
      load_run<Element>(static_cast<const typename Element::Stored*>(a.x.data) + place.row * a.x.stride + place.col,
                        count, v);
    uint32_t top = 0;
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; ++i) {
      bool non_finite = false;
      const uint32_t x = finite_magnitude(v[i], non_finite);
      // inf and NaN count as the smallest number: a group of them and zeros is no group of zeros, and no scale changes.
      const uint32_t counted = non_finite ? 1 : x;
      top = counted > top ? counted : top;
    }
    top = m.warp_max(top, kLanes);
    if (place.count == 0) return;

    const auto scale = Group::scale(float_from_bits(top), a);
    if (place.col % Group::kGroup == 0) Group::store_scale(a, place.row, place.col / Group::kGroup, scale);
    const uint32_t stored = Group::kPadded ? kRun : count;
    if (stored == 0) return;
    uint32_t codes[kRun];
    if constexpr (Rounding::kRandom) {
      RandomRun random(a.key, a.first + place.row * a.row_stride + place.col);
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) codes[i] = Group::encode(v[i], scale, random.next());
    } else {
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) codes[i] = Group::encode(v[i], scale);
    }
    Group::store(a, place.row, place.col, stored, codes);
  }
};

struct GroupDecodeArgs {
  const uint8_t* codes;
  int64_t codes_stride;  ///< bytes
  const uint8_t* scales;
  const float* tensor_scale;
  uint32_t rows, cols, padded_cols;
  void* out;
  int64_t out_stride;
};

template <class Group, class Element>
struct DecodeGroups {
  using Args = GroupDecodeArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  struct Shared {};

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared&) {
    const Place place = place_of(m.block_x() * kThreads + m.thread(), a.rows, a.cols);
    if (place.count == 0) return;
    const uint32_t s = a.scales[blocked_offset(place.row, place.col / Group::kGroup, a.padded_cols / Group::kGroup)];
    float v[kRun];
    if constexpr (Group::kGroup == MicroFp4::kGroup) {
      const float step = *a.tensor_scale * E4m3::decode(s);
      const uint32_t word =
          reinterpret_cast<const Packet<4>*>(a.codes + place.row * a.codes_stride + place.col / 2)->word[0];
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) v[i] = E2m1::decode(word >> (i / 2 * 8 + (i % 2 == 0 ? 4 : 0)) & 0xF) * step;
    } else {
      const float step = float_from_bits(s << 23);  // 0 means 0.0
      const CodeRun codes = load_codes(a.codes + place.row * a.codes_stride + place.col, kRun);
      MEZZOTINT_UNROLL
      for (uint32_t i = 0; i < kRun; ++i) v[i] = E4m3::decode(codes.get(i)) * step;
    }
    store_run<Element>(static_cast<typename Element::Stored*>(a.out) + place.row * a.out_stride + place.col,
                       place.count, v);
  }
};

}  // namespace mezzotint::kernel::cuda::device
