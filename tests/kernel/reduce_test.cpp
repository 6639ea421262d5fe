#include "mezzotint/kernel/reduce.h"

#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

/// Independent definition over a rectangle.
Amax expected(Matrix& m, DType dtype, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
  Amax result;
  for (int64_t r = r0; r < std::min(r1, m.rows()); ++r)
    for (int64_t c = c0; c < std::min(c1, m.cols()); ++c) {
      const float x = std::abs(value(m, dtype, r, c));
      if (!std::isfinite(x)) result.non_finite = true;
      if (std::isfinite(x) && x > result.value) result.value = x;
    }
  return result;
}

template <class F>
void for_each_case(F check) {
  auto rng = test_rng();
  for (const DType dtype : kSourceTypes)
    for (const Shape2& s : awkward_shapes())
      for (const Fill kind : {Fill::weights, Fill::any_bits}) {
        Matrix m(s.rows, s.cols, bytes_of(dtype), s.gap, s.offset);
        fill(m, dtype, kind, rng);
        check(m, dtype);
      }
}

TEST(Amax, OfTheWholeMatrix) {
  for_each_case([](Matrix& m, DType dtype) {
    const Amax want = expected(m, dtype, 0, m.rows(), 0, m.cols());
    for (const Isa isa : enabled_isas()) {
      const ScopedIsaCap cap(isa);
      const Amax got = amax(m.source(dtype));
      ASSERT_EQ(got.value, want.value) << name(isa);
      ASSERT_EQ(got.non_finite, want.non_finite) << name(isa);
    }
  });
}

TEST(Amax, OfRows) {
  for_each_case([](Matrix& m, DType dtype) {
    Matrix out(m.rows(), 1, 4, 0, 1);
    bool non_finite = false;
    Matrix got = same_at_every_level(Matrix(m.rows(), 1, 4), [&](Matrix& o) {
      non_finite = amax_rows(m.source(dtype), reinterpret_cast<float*>(o.data()));
    });
    for (int64_t r = 0; r < m.rows(); ++r)
      ASSERT_EQ(got.get<float>(r, 0), expected(m, dtype, r, r + 1, 0, m.cols()).value);
    ASSERT_EQ(non_finite, expected(m, dtype, 0, m.rows(), 0, m.cols()).non_finite);
  });
}

TEST(Amax, OfBlocks) {
  for_each_case([](Matrix& m, DType dtype) {
    for (const auto& [br, bc] : {std::pair<int64_t, int64_t>{1, 1}, {2, 16}, {1, 128}, {64, 64}, {128, 128}, {3, 7}}) {
      const int64_t nr = (m.rows() + br - 1) / br, nc = (m.cols() + bc - 1) / bc;
      bool non_finite = false;
      Matrix got = same_at_every_level(Matrix(nr, nc, 4, 2), [&, br = br, bc = bc](Matrix& o) {
        non_finite = amax_blocks(m.source(dtype), br, bc, reinterpret_cast<float*>(o.data()), o.stride());
      });
      for (int64_t r = 0; r < nr; ++r)
        for (int64_t c = 0; c < nc; ++c)
          ASSERT_EQ(got.get<float>(r, c), expected(m, dtype, r * br, (r + 1) * br, c * bc, (c + 1) * bc).value);
      ASSERT_EQ(non_finite, expected(m, dtype, 0, m.rows(), 0, m.cols()).non_finite);
    }
  });
}

TEST(Amax, SeesOneElementAnywhere) {
  for (const DType dtype : kSourceTypes)
    for (const int64_t n : {1, 7, 64, 200})
      for (int64_t at = 0; at < n; ++at) {
        Matrix m(1, n, bytes_of(dtype));
        for (int64_t c = 0; c < n; ++c) m.set<uint16_t>(0, c, 0), std::memset(m.at(0, c), 0, bytes_of(dtype));
        // -2 in every dtype: the sign must not hide it
        if (dtype == DType::f32) m.set<float>(0, at, -2.0f);
        if (dtype != DType::f32) m.set<uint16_t>(0, at, dtype == DType::bf16 ? 0xC000 : 0xC000);
        for (const Isa isa : enabled_isas()) {
          const ScopedIsaCap cap(isa);
          ASSERT_EQ(amax(m.source(dtype)).value, 2.0f) << name(isa) << " " << n << " " << at;
        }
      }
}

TEST(Amax, OfNothingIsZero) {
  EXPECT_EQ(amax({nullptr, DType::f32, 0, 0, 0}).value, 0.0f);
  const float special[] = {INFINITY, NAN, -INFINITY};
  const Amax got = amax({special, DType::f32, 1, 3, 3});
  EXPECT_EQ(got.value, 0.0f);
  EXPECT_TRUE(got.non_finite);
}

}  // namespace
}  // namespace mezzotint::kernel::test
