#pragma once
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/base/integer.h"
#include "mezzotint/base/philox.h"
#include "mezzotint/kernel/cuda/device/machine.h"

/// How values and codes are stored, and how a thread reads and writes a run of them.
namespace mezzotint::kernel::cuda::device {

struct F32 {
  using Stored = uint32_t;
  MEZZOTINT_DEVICE static float load(uint32_t bits) { return float_from_bits(bits); }
  MEZZOTINT_DEVICE static uint32_t store(float x) { return float_bits(x); }
};
struct Half {
  using Stored = uint16_t;
  MEZZOTINT_DEVICE static float load(uint16_t bits) { return Fp16::decode(bits); }
  MEZZOTINT_DEVICE static uint16_t store(float x) { return static_cast<uint16_t>(Fp16::encode(x)); }
};
struct Brain {
  using Stored = uint16_t;
  MEZZOTINT_DEVICE static float load(uint16_t bits) { return Bf16::decode(bits); }
  MEZZOTINT_DEVICE static uint16_t store(float x) { return static_cast<uint16_t>(Bf16::encode(x)); }
};

/// Consecutive elements that a thread of an element-wise kernel handles.
constexpr uint32_t kRun = 8;

/// v[i] = p[i] for i < count, 0 for the rest; 16 bytes at a time where the address allows it.
template <class Element>
MEZZOTINT_DEVICE void load_run(const typename Element::Stored* p, uint32_t count, float (&v)[kRun]) {
  using Stored = typename Element::Stored;
  constexpr uint32_t kEach = 16 / sizeof(Stored);
  if (count == kRun && aligned<16>(p)) {
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; i += kEach) {
      const Packet<16> packet = *reinterpret_cast<const Packet<16>*>(p + i);
      MEZZOTINT_UNROLL
      for (uint32_t j = 0; j < kEach; ++j) {
        constexpr uint32_t kPerWord = 4 / sizeof(Stored);
        v[i + j] = Element::load(static_cast<Stored>(packet.word[j / kPerWord] >> (j % kPerWord * 8 * sizeof(Stored))));
      }
    }
    return;
  }
  MEZZOTINT_UNROLL
  for (uint32_t i = 0; i < kRun; ++i) v[i] = i < count ? Element::load(p[i]) : 0.0f;
}

/// p[i] = v[i] for i < count.
template <class Element>
MEZZOTINT_DEVICE void store_run(typename Element::Stored* p, uint32_t count, const float (&v)[kRun]) {
  using Stored = typename Element::Stored;
  constexpr uint32_t kEach = 16 / sizeof(Stored);
  if (count == kRun && aligned<16>(p)) {
    MEZZOTINT_UNROLL
    for (uint32_t i = 0; i < kRun; i += kEach) {
      Packet<16> packet{};
      MEZZOTINT_UNROLL
      for (uint32_t j = 0; j < kEach; ++j) {
        constexpr uint32_t kPerWord = 4 / sizeof(Stored);
        packet.word[j / kPerWord] |= static_cast<uint32_t>(Element::store(v[i + j]))
                                     << (j % kPerWord * 8 * sizeof(Stored));
      }
      *reinterpret_cast<Packet<16>*>(p + i) = packet;
    }
    return;
  }
  MEZZOTINT_UNROLL
  for (uint32_t i = 0; i < kRun; ++i)
    if (i < count) p[i] = Element::store(v[i]);
}

/// A run of up to 8 one-byte codes, code i in byte i.
struct CodeRun {
  uint32_t word[2];
  MEZZOTINT_DEVICE uint32_t get(uint32_t i) const { return word[i / 4] >> (i % 4 * 8) & 0xFF; }
  MEZZOTINT_DEVICE void put(uint32_t i, uint32_t code) { word[i / 4] |= (code & 0xFF) << (i % 4 * 8); }
};

MEZZOTINT_DEVICE CodeRun load_codes(const uint8_t* p, uint32_t count) {
  CodeRun run{};
  if (count == kRun && aligned<8>(p)) {
    const Packet<8> packet = *reinterpret_cast<const Packet<8>*>(p);
    run.word[0] = packet.word[0];
    run.word[1] = packet.word[1];
    return run;
  }
  MEZZOTINT_UNROLL
  for (uint32_t i = 0; i < kRun; ++i)
    if (i < count) run.put(i, p[i]);
  return run;
}

MEZZOTINT_DEVICE void store_codes(uint8_t* p, uint32_t count, const CodeRun& run) {
  if (count == kRun && aligned<8>(p)) {
    *reinterpret_cast<Packet<8>*>(p) = {{run.word[0], run.word[1]}};
    return;
  }
  MEZZOTINT_UNROLL
  for (uint32_t i = 0; i < kRun; ++i)
    if (i < count) p[i] = static_cast<uint8_t>(run.get(i));
}

/// Random bits of consecutive elements; one call of the generator for every four.
class RandomRun {
 public:
  MEZZOTINT_DEVICE RandomRun(uint64_t key, uint64_t first) : key_(key), index_(first), block_{} {
    if (first % 4 != 0) block_ = Philox::stream(key, first / 4);
  }
  MEZZOTINT_DEVICE uint32_t next() {
    const uint32_t at = static_cast<uint32_t>(index_ % 4);
    if (at == 0) block_ = Philox::stream(key_, index_ / 4);
    ++index_;
    const uint32_t low = at == 0 ? block_.word[0] : block_.word[1];
    const uint32_t high = at == 2 ? block_.word[2] : block_.word[3];
    return at < 2 ? low : high;
  }

 private:
  uint64_t key_, index_;
  Philox::Block block_;
};

/// A magnitude as an integer, ordered like the value; 0 for inf and NaN, which take no part in a maximum.
MEZZOTINT_DEVICE uint32_t finite_magnitude(float x, bool& non_finite) {
  const uint32_t a = float_bits(x) & static_cast<uint32_t>(kFloatMagnitude);
  if (a < static_cast<uint32_t>(kFloatInfBits)) return a;
  non_finite = true;
  return 0;
}

/// How a value between two codes becomes one of them (base/rounding.h has the whole story).
struct Nearest {
  static constexpr bool kRandom = false;
};
struct Stochastic {
  static constexpr bool kRandom = true;
};

/// Codes of one byte: how runs of them lie in a row.
struct ByteCode {
  using Run = CodeRun;
  MEZZOTINT_DEVICE static CodeRun load(const uint8_t* row, uint32_t col, uint32_t count) {
    return load_codes(row + col, count);
  }
  MEZZOTINT_DEVICE static void store(uint8_t* row, uint32_t col, uint32_t count, const CodeRun& run) {
    store_codes(row + col, count, run);
  }
};
template <class Codec>
struct FloatCode : ByteCode {
  MEZZOTINT_DEVICE static float scaled(float x, float multiplier) { return x * multiplier; }
  MEZZOTINT_DEVICE static uint32_t encode(float y, int32_t) { return Codec::encode_saturating(y); }
  MEZZOTINT_DEVICE static uint32_t encode(float y, int32_t, uint32_t random) {
    return Codec::encode_stochastic(y, random);
  }
  MEZZOTINT_DEVICE static float decode(uint32_t code) { return Codec::decode(code); }
};
struct IntegerCode : ByteCode {
  MEZZOTINT_DEVICE static float scaled(float x, float scale) { return x / scale; }
  MEZZOTINT_DEVICE static uint32_t encode(float y, int32_t lowest) {
    return static_cast<uint32_t>(Int8::encode(y, static_cast<float>(lowest), 127.0f));
  }
  MEZZOTINT_DEVICE static uint32_t encode(float y, int32_t lowest, uint32_t random) {
    return static_cast<uint32_t>(Int8::encode_stochastic(y, static_cast<float>(lowest), 127.0f, random));
  }
  MEZZOTINT_DEVICE static float decode(uint32_t code) { return static_cast<float>(static_cast<int8_t>(code)); }
};

}  // namespace mezzotint::kernel::cuda::device
