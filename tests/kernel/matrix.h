#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/oracle.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/kernel/isa.h"
#include "mezzotint/kernel/source.h"
#include "support/seed.h"

namespace mezzotint::kernel::test {

using mezzotint::test::float_of;
using mezzotint::test::test_rng;

/// A matrix at any byte offset with gaps between rows and margins around it, all of it filled with a pattern, so that a
/// kernel that writes outside of its elements is caught.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, int64_t element_bytes, int64_t gap = 0, int64_t offset = 0)
      : rows_(rows), cols_(cols), bytes_(element_bytes), stride_(cols + gap), begin_(kMargin + offset) {
    buffer_.assign(static_cast<size_t>(begin_ + rows * stride_ * bytes_ + kMargin), kPattern);
  }
  uint8_t* data() { return buffer_.data() + begin_; }
  uint8_t* at(int64_t r, int64_t c) { return data() + (r * stride_ + c) * bytes_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  Source source(DType dtype) { return {data(), dtype, rows_, cols_, stride_}; }

  template <class T>
  T get(int64_t r, int64_t c) {
    T value;
    std::memcpy(&value, at(r, c), sizeof value);
    return value;
  }
  template <class T>
  void set(int64_t r, int64_t c, T value) {
    std::memcpy(at(r, c), &value, sizeof value);
  }
  /// The elements alone, row by row.
  std::vector<uint8_t> elements() {
    std::vector<uint8_t> out;
    for (int64_t r = 0; r < rows_; ++r) out.insert(out.end(), at(r, 0), at(r, 0) + cols_ * bytes_);
    return out;
  }
  /// Whether every byte that is no element still holds the pattern.
  bool neighbours_untouched() {
    Matrix copy = *this;
    for (int64_t r = 0; r < rows_; ++r) std::fill_n(copy.at(r, 0), cols_ * bytes_, kPattern);
    return std::all_of(copy.buffer_.begin(), copy.buffer_.end(), [](uint8_t b) { return b == kPattern; });
  }

 private:
  static constexpr int64_t kMargin = 192;
  static constexpr uint8_t kPattern = 0xA5;
  int64_t rows_, cols_, bytes_, stride_, begin_;
  std::vector<uint8_t> buffer_;
};

inline int64_t bytes_of(DType dtype) {
  return dtype == DType::f32 ? 4 : 2;
}

struct Shape2 {
  int64_t rows, cols, gap, offset;
};
/// Around every vector width, with and without gaps between rows, at addresses that no element type likes.
inline std::vector<Shape2> awkward_shapes() {
  std::vector<Shape2> shapes = {{0, 5, 0, 0},   {5, 0, 3, 1},     {1, 1, 0, 0},   {1, 1, 0, 3},   {3, 17, 0, 0},
                                {3, 17, 5, 1},  {9, 31, 0, 2},    {4, 64, 0, 0},  {4, 65, 1, 0},  {2, 127, 0, 1},
                                {64, 33, 0, 0}, {217, 256, 0, 0}, {1, 300, 0, 1}, {300, 1, 0, 0}, {40, 130, 6, 3}};
  for (int64_t n = 2; n < 20; ++n) shapes.push_back({2, n, n % 3, n % 2});
  return shapes;
}

/// How inputs look: ordinary heavy-tailed weights, or any bit pattern with a share of special values.
enum class Fill { weights, any_bits };

inline void fill(Matrix& m, DType dtype, Fill kind, std::mt19937_64& rng) {
  static constexpr uint32_t kSpecial[] = {0,          0x80000000, 1,          0x80000001, 0x00400000,
                                          0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000,
                                          0xFF800000, 0x7FC00000, 0xFF812345, 0x3F800000};
  std::normal_distribution<float> normal(0, 0.02f);
  for (int64_t r = 0; r < m.rows(); ++r)
    for (int64_t c = 0; c < m.cols(); ++c) {
      float x = normal(rng);
      if (rng() % 200 == 0) x *= 1000;
      uint32_t bits = std::bit_cast<uint32_t>(x);
      if (kind == Fill::any_bits)
        bits = rng() % 4 == 0 ? kSpecial[rng() % std::size(kSpecial)] : static_cast<uint32_t>(rng());
      if (dtype == DType::f32) m.set<uint32_t>(r, c, bits);
      if (dtype == DType::bf16) m.set<uint16_t>(r, c, static_cast<uint16_t>(bits >> 16));
      if (dtype == DType::f16)
        m.set<uint16_t>(r, c, static_cast<uint16_t>(kind == Fill::any_bits ? bits >> 13 : Fp16::encode(x)));
    }
}

/// An element as float32; the codecs are checked exhaustively elsewhere (tests/base).
inline float value(Matrix& m, DType dtype, int64_t r, int64_t c) {
  if (dtype == DType::f32) return m.get<float>(r, c);
  const auto code = m.get<uint16_t>(r, c);
  return dtype == DType::bf16 ? Bf16::decode(code) : Fp16::decode(code);
}

constexpr DType kSourceTypes[] = {DType::f32, DType::bf16, DType::f16};

/// The base levels that run here and now, lowest first.
inline std::vector<Isa> enabled_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : base_isas())
    if (enabled(isa)) isas.push_back(isa);
  return isas;
}

/// The same with the narrower levels, for kernels that have some.
inline std::vector<Isa> every_enabled_isa() {
  std::vector<Isa> isas;
  for (const IsaFacts& facts : all_isas())
    if (enabled(facts.isa)) isas.push_back(facts.isa);
  return isas;
}

/// Runs `kernel(out)` at every level into fresh copies of `blank`; all must write the same bytes as the scalar level
/// and nothing outside. Returns the result.
template <class F>
Matrix same_at_every_level(const Matrix& blank, F kernel) {
  Matrix reference = blank;
  {
    const ScopedIsaCap cap(Isa::scalar);
    kernel(reference);
  }
  EXPECT_TRUE(reference.neighbours_untouched());
  for (const Isa isa : enabled_isas()) {
    const ScopedIsaCap cap(isa);
    EXPECT_EQ(compiled_isa(), isa);
    Matrix out = blank;
    kernel(out);
    EXPECT_TRUE(out.elements() == reference.elements()) << name(isa);
    EXPECT_TRUE(out.neighbours_untouched()) << name(isa);
  }
  return reference;
}

}  // namespace mezzotint::kernel::test
