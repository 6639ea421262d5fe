#include "mezzotint/kernel/transpose.h"

#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

TEST(Transpose, EveryElementSizeAtEveryLevel) {
  auto rng = test_rng();
  for (const int bytes : {1, 2, 4})
    for (const Shape2& s : awkward_shapes()) {
      Matrix m(s.rows, s.cols, bytes, s.gap, s.offset);
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t c = 0; c < s.cols; ++c)
          for (int b = 0; b < bytes; ++b) m.at(r, c)[b] = static_cast<uint8_t>(rng());
      Matrix got = same_at_every_level(Matrix(s.cols, s.rows, bytes, s.gap, s.offset), [&](Matrix& out) {
        transpose(m.data(), s.rows, s.cols, m.stride(), out.data(), out.stride(), bytes);
      });
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t c = 0; c < s.cols; ++c)
          ASSERT_EQ(std::memcmp(got.at(c, r), m.at(r, c), bytes), 0) << r << "," << c;
    }
}

}  // namespace
}  // namespace mezzotint::kernel::test
