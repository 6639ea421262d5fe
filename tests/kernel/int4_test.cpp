#include "mezzotint/kernel/int4.h"

#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

/// Row-major nibbles of a matrix of packed codes.
int nibble(Matrix& codes, int64_t r, int64_t c) {
  return *codes.at(r, c / 2) >> (c % 2 * 4) & 15;
}

TEST(Int4, EncodesAnyRangeOfColumnsByTheFormula) {
  auto rng = test_rng();
  for (const DType dtype : kSourceTypes)
    for (const Shape2& s : awkward_shapes())
      for (const Fill kind : {Fill::weights, Fill::any_bits})
        for (const int64_t col0 : {0, 1, 6}) {
          Matrix m(s.rows, s.cols, bytes_of(dtype), s.gap, s.offset);
          fill(m, dtype, kind, rng);
          std::vector<float> scale(static_cast<size_t>(s.rows) + 1);
          for (float& x : scale) x = 0.005f * std::exp2(std::uniform_real_distribution<float>(-2, 2)(rng));
          const Matrix blank(s.rows, (col0 + s.cols + 1) / 2, 1, s.gap, s.offset);
          Matrix got = same_at_every_level(blank, [&](Matrix& out) {
            encode_int4(m.source(dtype), Scales::per_row(scale.data()), out.data(), out.stride(), col0);
          });
          Matrix before = blank;
          for (int64_t r = 0; r < s.rows; ++r) {
            for (int64_t c = 0; c < s.cols; ++c) {
              const float y = value(m, dtype, r, c) / scale[static_cast<size_t>(r)];
              const int code = std::isnan(y) ? 0 : static_cast<int>(std::clamp(std::nearbyint(y), -7.0f, 7.0f));
              ASSERT_EQ(nibble(got, r, col0 + c), code & 15) << r << " " << c;
            }
            // The other halves of shared bytes, and bytes in front, stay.
            for (int64_t c = 0; c < 2 * blank.cols(); ++c)
              if (c < col0 || c >= col0 + s.cols) {
                ASSERT_EQ(nibble(got, r, c), nibble(before, r, c)) << r << " " << c;
              }
          }
        }
}

TEST(Int4, UnpacksEveryCode) {
  Matrix codes(1, 128, 1, 0, 1);
  for (int64_t c = 0; c < 128; ++c) *codes.at(0, c) = static_cast<uint8_t>(2 * c + c / 64);
  for (int64_t cols = 0; cols <= 256; ++cols) {
    Matrix values = same_at_every_level(Matrix(1, cols, 1, 0, 3), [&](Matrix& to) {
      unpack_int4(codes.data(), cols, reinterpret_cast<int8_t*>(to.data()));
    });
    for (int64_t c = 0; c < cols; ++c) {
      const int n = nibble(codes, 0, c);
      ASSERT_EQ(values.get<int8_t>(0, c), n > 7 ? n - 16 : n) << c << " of " << cols;
    }
  }
}

TEST(Int4, DecodesEveryCodeOfAnyRange) {
  auto rng = test_rng();
  Matrix codes(3, 40, 1, 2, 1);
  for (int64_t r = 0; r < 3; ++r)
    for (int64_t c = 0; c < 40; ++c) *codes.at(r, c) = static_cast<uint8_t>(rng());
  const float scale[3] = {0.37f, 2.5f, 1e-30f};
  for (int64_t col0 = 0; col0 < 9; ++col0)
    for (int64_t cols = 0; col0 + cols <= 80; ++cols) {
      Matrix out = same_at_every_level(Matrix(3, cols, 4, 1, 2), [&](Matrix& to) {
        decode_int4(codes.data(), 3, cols, codes.stride(), col0, Scales::per_row(scale),
                    reinterpret_cast<float*>(to.data()), to.stride());
      });
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t c = 0; c < cols; ++c) {
          const int n = nibble(codes, r, col0 + c);
          ASSERT_EQ(out.get<float>(r, c), static_cast<float>(n > 7 ? n - 16 : n) * scale[r]);
        }
    }
}

/// Weighted squared error of a row at a scale, in double.
double row_error(const std::vector<float>& w, const std::vector<float>& h, float scale) {
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double q = std::clamp(std::nearbyint(static_cast<double>(w[i] / scale)), -7.0, 7.0);
    sum += (h.empty() ? 1.0 : static_cast<double>(h[i])) * std::pow(w[i] - q * scale, 2);
  }
  return sum;
}

TEST(Int4Search, IsAsGoodAsTheBestFactorAndTheSameAtEveryLevel) {
  auto rng = test_rng();
  for (const int64_t cols : {64, 100, 1024})
    for (const bool weighted : {false, true}) {
      std::vector<float> w(static_cast<size_t>(cols)), h;
      for (float& x : w) x = std::normal_distribution<float>(0, 0.02f)(rng);
      if (weighted)
        for (int64_t i = 0; i < cols; ++i) h.push_back(std::exp2(std::normal_distribution<float>(0, 2)(rng)));
      const float absmax =
          std::abs(*std::max_element(w.begin(), w.end(), [](float a, float b) { return std::abs(a) < std::abs(b); })) /
          7.0f;
      const Source x{w.data(), DType::f32, 1, cols, cols};
      Matrix start(1, 1, 4);
      start.set(0, 0, absmax);
      Matrix out = same_at_every_level(start, [&](Matrix& to) {
        search_int4_rows(x, weighted ? h.data() : nullptr, 1, 1e-11f, reinterpret_cast<float*>(to.data()));
      });
      double best = row_error(w, h, absmax);
      const double before = best;
      for (const float factor : kInt4Factor) best = std::min(best, row_error(w, h, absmax * factor));
      EXPECT_LE(row_error(w, h, out.get<float>(0, 0)), best * (1 + 1e-4));
      EXPECT_LT(best, 0.99 * before) << "nothing to gain here: the test shows nothing";
      // Control: a scale that was not searched is worse.
      EXPECT_GT(row_error(w, h, absmax * 0.4f), best);
    }
}

TEST(Int4Search, KeepsRowsItCannotJudge) {
  std::vector<float> w(64, 0.5f);
  w[5] = NAN;
  float scale = 0.5f / 7;
  search_int4_rows({w.data(), DType::f32, 1, 64, 64}, nullptr, 1, 1e-11f, &scale);
  EXPECT_EQ(scale, 0.5f / 7);
  scale = 1e-11f;
  search_int4_rows({w.data(), DType::f32, 1, 64, 64}, nullptr, 1, 1e-11f, &scale);
  EXPECT_EQ(scale, 1e-11f);
}

}  // namespace
}  // namespace mezzotint::kernel::test
