#pragma once
// Helpers of the *.isa.cpp files. Everything has internal linkage or is always inlined, so that an object compiled for
// one level exports nothing but its kernels.
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/dtype.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/base/philox.h"
#include "mezzotint/base/scalar.h"
#include "mezzotint/kernel/isa_file.h"
#include "mezzotint/kernel/source.h"

namespace mezzotint::kernel {
namespace {

// Storage types that may lie at any address and alias anything: a tensor in a file need not be aligned. A deduced type
// (template argument, auto*) loses the attributes; name these where elements are accessed.
typedef uint8_t Byte __attribute__((may_alias));
typedef uint16_t Word __attribute__((may_alias, aligned(1)));
typedef uint32_t Dword __attribute__((may_alias, aligned(1)));

/// How an element of a source is stored and read.
struct F32Element {
  using Stored = Dword;
  using Magnitude = int32_t;
  static constexpr int32_t kInf = kFloatInfBits;
  MEZZOTINT_SCALAR static float load(uint32_t bits) { return float_from_bits(bits); }
};
struct Bf16Element {
  using Stored = Word;
  using Magnitude = int16_t;
  static constexpr int16_t kInf = 0x7F80;
  MEZZOTINT_SCALAR static float load(uint16_t bits) { return Bf16::decode(bits); }
};
struct F16Element {
  using Stored = Word;
  using Magnitude = int16_t;
  static constexpr int16_t kInf = 0x7C00;
  MEZZOTINT_SCALAR static float load(uint16_t bits) { return Fp16::decode(bits); }
};

/// Calls f.operator()<Element>() for a source dtype.
template <class F>
[[gnu::always_inline]] inline void with_element(DType dtype, F&& f) {
  if (dtype == DType::bf16) return f.template operator()<Bf16Element>();
  if (dtype == DType::f16) return f.template operator()<F16Element>();
  f.template operator()<F32Element>();
}

template <class T>
[[gnu::always_inline]] inline T smaller(T a, T b) {
  return a < b ? a : b;
}

/// Calls f(row, first column, count, scale) for every run of a row that shares one scale.
template <class F>
[[gnu::always_inline]] inline void for_each_run(int64_t rows, int64_t cols, const Scales& scales, F&& f) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = scales.data;
    if (scales.block_rows != 0) row += (scales.row0 + r) / scales.block_rows * scales.stride;
    if (scales.block_cols == 0) {
      if (cols > 0) f(r, int64_t{0}, cols, *row);
      continue;
    }
    int64_t block = scales.col0 / scales.block_cols;
    for (int64_t c = 0; c < cols; ++block) {
      const int64_t end = smaller((block + 1) * scales.block_cols - scales.col0, cols);
      f(r, c, end - c, row[block]);
      c = end;
    }
  }
}

/// A matrix whose rows follow each other without gaps and share one scale is one long row.
[[gnu::always_inline]] inline void flatten(int64_t& rows, int64_t& cols, bool contiguous) {
  if (!contiguous || rows < 2) return;
  cols *= rows;
  rows = 1;
}
[[gnu::always_inline]] inline bool is_scalar(const Scales& scales) {
  return scales.block_rows == 0 && scales.block_cols == 0;
}

/// Random bits of up to kCount consecutive elements.
struct RandomChunk {
  static constexpr int64_t kCount = 512;
  alignas(64) uint32_t words[kCount + 8];
};

/// Fills the chunk; result[i] = random_bits(key, first + i) for i < count.
[[gnu::noinline, maybe_unused]] const uint32_t* fill_random(uint64_t key, uint64_t first, int64_t count,
                                                            RandomChunk& chunk) {
  const uint64_t block = first >> 2;
  const int64_t blocks = static_cast<int64_t>(((first & 3) + static_cast<uint64_t>(count) + 3) >> 2);
  uint32_t* out = chunk.words;
  for (int64_t j = 0; j < blocks; ++j) {
    const Philox::Block b = Philox::stream(key, block + static_cast<uint64_t>(j));
    out[4 * j] = b.word[0];
    out[4 * j + 1] = b.word[1];
    out[4 * j + 2] = b.word[2];
    out[4 * j + 3] = b.word[3];
  }
  return chunk.words + (first & 3);
}

}  // namespace
}  // namespace mezzotint::kernel
