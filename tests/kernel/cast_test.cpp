#include "mezzotint/kernel/cast.h"

#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

/// Bits of x as `to`, from the scalar codecs (which tests/base checks on their own).
uint32_t expected(float x, DType to, Overflow overflow) {
  const bool saturate = overflow == Overflow::saturate;
  if (to == DType::bf16) return saturate ? Bf16::encode_saturating(x) : Bf16::encode(x);
  if (to == DType::f16) return saturate ? Fp16::encode_saturating(x) : Fp16::encode(x);
  return std::bit_cast<uint32_t>(x);
}

TEST(Cast, EveryPairAtEveryLevel) {
  auto rng = test_rng();
  for (const DType from : kSourceTypes)
    for (const DType to : kSourceTypes)
      for (const Overflow overflow : {Overflow::infinity, Overflow::saturate})
        for (const Shape2& s : awkward_shapes())
          for (const Fill kind : {Fill::weights, Fill::any_bits}) {
            Matrix m(s.rows, s.cols, bytes_of(from), s.gap, s.offset);
            fill(m, from, kind, rng);
            Matrix got = same_at_every_level(Matrix(s.rows, s.cols, bytes_of(to), s.gap, s.offset), [&](Matrix& out) {
              cast(m.source(from), to, out.data(), out.stride(), overflow);
            });
            if (from == to) {
              ASSERT_EQ(got.elements(), m.elements());
              continue;
            }
            for (int64_t r = 0; r < m.rows(); ++r)
              for (int64_t c = 0; c < m.cols(); ++c) {
                const uint32_t bits = bytes_of(to) == 4 ? got.get<uint32_t>(r, c) : got.get<uint16_t>(r, c);
                ASSERT_EQ(bits, expected(value(m, from, r, c), to, overflow)) << r << "," << c;
              }
          }
}

TEST(Cast, EverySixteenBitInputRoundTripsThroughFloat) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    Matrix m(256, 256, 2);
    for (int64_t i = 0; i < 65536; ++i) m.set<uint16_t>(i / 256, i % 256, static_cast<uint16_t>(i));
    Matrix wide = same_at_every_level(
        Matrix(256, 256, 4), [&](Matrix& out) { cast(m.source(dtype), DType::f32, out.data(), out.stride()); });
    Matrix back = same_at_every_level(
        Matrix(256, 256, 2), [&](Matrix& out) { cast(wide.source(DType::f32), dtype, out.data(), out.stride()); });
    for (int64_t i = 0; i < 65536; ++i) {
      auto want = static_cast<uint16_t>(i);
      if (std::isnan(value(m, dtype, i / 256, i % 256))) want |= dtype == DType::bf16 ? 0x40 : 0x200;  // quieted
      ASSERT_EQ(back.get<uint16_t>(i / 256, i % 256), want);
    }
  }
}

}  // namespace
}  // namespace mezzotint::kernel::test
