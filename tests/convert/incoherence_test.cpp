#include "mezzotint/convert/optimizers/incoherence.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "convert/feedback_case.h"
#include "mezzotint/base/philox.h"

// The rotation against its definition, element by element in double.
namespace mezzotint::convert {
namespace {

constexpr uint64_t kKey = 0x1234567890ABCDEF;

using Matrix = std::vector<double>;  // [n, n]

double definition_sign(uint64_t key, uint64_t index) {
  return random_bits(key, index) % 2 == 1 ? -1.0 : 1.0;
}

/// (-1)^popcount(i & j) / sqrt(block) within blocks on the diagonal.
double hadamard(int64_t i, int64_t j, int64_t block) {
  if (i / block != j / block) return 0;
  const auto common = static_cast<uint64_t>(i % block & j % block);
  return (std::popcount(common) % 2 == 0 ? 1.0 : -1.0) / std::sqrt(static_cast<double>(block));
}

Matrix column_rotation(int64_t n, int64_t block) {
  Matrix v(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      v[static_cast<size_t>(i * n + j)] = definition_sign(kKey, static_cast<uint64_t>(i)) * hadamard(i, j, block);
  return v;
}

Matrix row_rotation(int64_t row0, int64_t n, int64_t block) {
  Matrix u(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      u[static_cast<size_t>(i * n + j)] =
          hadamard(i, j, block) * definition_sign(kKey, (uint64_t{1} << 62) + static_cast<uint64_t>(row0 + j));
  return u;
}

/// A [m, k] times B [k, n].
Matrix product(const Matrix& a, const Matrix& b, int64_t m, int64_t k, int64_t n) {
  Matrix c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t p = 0; p < k; ++p)
      for (int64_t j = 0; j < n; ++j)
        c[static_cast<size_t>(i * n + j)] += a[static_cast<size_t>(i * k + p)] * b[static_cast<size_t>(p * n + j)];
  return c;
}

double largest_difference(const std::vector<float>& got, const Matrix& expected) {
  double most = 0;
  for (size_t i = 0; i < got.size(); ++i) most = std::max(most, std::abs(double{got[i]} - expected[i]));
  return most;
}

TEST(Incoherence, IsTwoOrthogonalMatrices) {
  struct Shape {
    int64_t rows, cols, row_block, col_block;
  };
  for (const Shape s : {Shape{6, 12, 2, 4}, Shape{8, 64, 8, 64}, Shape{5, 24, 1, 8}, Shape{4, 7, 4, 1}}) {
    SCOPED_TRACE(testing::Message() << s.rows << " x " << s.cols);
    const Incoherence rotation(s.cols, kKey);
    const std::vector<float> x = normal(s.rows * s.cols, 3);
    const Matrix u = row_rotation(256, s.rows, s.row_block), v = column_rotation(s.cols, s.col_block);
    const Matrix wide(x.begin(), x.end());

    std::vector<float> both = x;
    rotation.rotate(both.data(), 256, s.rows);
    const Matrix expected = product(product(u, wide, s.rows, s.rows, s.cols), v, s.rows, s.cols, s.cols);
    EXPECT_LT(largest_difference(both, expected), 1e-5);
    EXPECT_GT(largest_difference(x, expected), 0.5);
    rotation.restore(both.data(), 256, s.rows);
    EXPECT_LT(largest_difference(both, wide), 1e-5);

    std::vector<float> right = x;
    rotation.rotate_columns(right.data(), s.rows);
    EXPECT_LT(largest_difference(right, product(wide, v, s.rows, s.cols, s.cols)), 1e-5);
    rotation.restore_columns(right.data(), s.rows);
    EXPECT_LT(largest_difference(right, wide), 1e-5);
  }
}

TEST(Incoherence, SpreadsOneWeightOverItsBlock) {
  const Incoherence rotation(128, kKey);
  std::vector<float> x(16 * 128);
  x[5 * 128 + 77] = 1.0f;
  rotation.rotate(x.data(), 0, 16);
  for (const float value : x) EXPECT_NEAR(std::abs(value), 1 / std::sqrt(16.0 * 128.0), 1e-7);
}

TEST(Incoherence, BlocksEndAtTheirLargest) {
  const int64_t cols = 2 * Incoherence::kLargestBlock;
  const Incoherence rotation(cols, kKey);
  std::vector<float> x(static_cast<size_t>(cols));
  x[3] = 1.0f;
  rotation.rotate_columns(x.data(), 1);
  for (int64_t j = 0; j < cols; ++j)
    EXPECT_NEAR(std::abs(x[static_cast<size_t>(j)]), j < Incoherence::kLargestBlock ? 1.0 / 64 : 0.0, 1e-7);
}

TEST(Incoherence, KeyDecides) {
  const std::vector<float> x = normal(8 * 32, 4);
  const auto rotated = [&](uint64_t key, int64_t row0) {
    std::vector<float> y = x;
    Incoherence(32, key).rotate(y.data(), row0, 8);
    return y;
  };
  EXPECT_EQ(rotated(1, 0), rotated(1, 0));
  EXPECT_NE(rotated(1, 0), rotated(2, 0));
  EXPECT_NE(rotated(1, 0), rotated(1, 256));
}

// tr(E H E') is what rounding lowers: the same in either basis, if H goes along.
TEST(Incoherence, KeepsTheObjective) {
  constexpr int64_t kRows = 16, kCols = 48;
  const Incoherence rotation(kCols, kKey);
  std::vector<float> gram = correlated_gram(kCols), lower = gram;
  for (int64_t i = 0; i < kCols; ++i)
    for (int64_t j = i + 1; j < kCols; ++j) lower[static_cast<size_t>(i * kCols + j)] = NAN;  // not to be looked at
  std::vector<float> rotated_gram = lower;
  rotation.rotate_moments(rotated_gram);
  const Matrix v = column_rotation(kCols, 16), wide(gram.begin(), gram.end());
  Matrix transposed(v.size());
  for (int64_t i = 0; i < kCols; ++i)
    for (int64_t j = 0; j < kCols; ++j)
      transposed[static_cast<size_t>(i * kCols + j)] = v[static_cast<size_t>(j * kCols + i)];
  const Matrix expected = product(product(transposed, wide, kCols, kCols, kCols), v, kCols, kCols, kCols);
  EXPECT_LT(largest_difference(rotated_gram, expected), 1e-5);

  const auto trace = [&](const std::vector<float>& e, const std::vector<float>& h) {
    const Matrix a(e.begin(), e.end()), b(h.begin(), h.end());
    const Matrix eh = product(a, b, kRows, kCols, kCols);
    double sum = 0;
    for (size_t i = 0; i < eh.size(); ++i) sum += eh[i] * a[i];
    return sum;
  };
  const std::vector<float> e = normal(kRows * kCols, 6);
  std::vector<float> rotated = e;
  rotation.rotate(rotated.data(), 512, kRows);
  const double before = trace(e, gram);
  EXPECT_NEAR(trace(rotated, rotated_gram), before, 1e-5 * before);
  EXPECT_GT(std::abs(trace(rotated, gram) - before), 0.01 * before);
}

}  // namespace
}  // namespace mezzotint::convert
