#include "mezzotint/kernel/dense.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace mezzotint {
namespace {

constexpr int64_t kOrder = 24;
using Matrix = std::vector<float>;

// Small integers, so that every sum is exact in float whatever its order.
Matrix integers(int64_t seed, int64_t modulus) {
  Matrix matrix(kOrder * kOrder);
  for (size_t i = 0; i < matrix.size(); ++i) {
    matrix[i] = static_cast<float>((static_cast<int64_t>(i) * 7 + seed * 13) % modulus - modulus / 2);
  }
  return matrix;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(kOrder * kOrder);
  for (int64_t i = 0; i < kOrder; ++i) {
    for (int64_t j = 0; j < kOrder; ++j) {
      for (int64_t k = 0; k < kOrder; ++k) c[i * kOrder + j] += a[i * kOrder + k] * b[k * kOrder + j];
    }
  }
  return c;
}

int64_t count_wrong_products(int64_t seed, int calls) {
  const Matrix a = integers(seed, 17), b = integers(seed + 1, 19), expected = product(a, b);
  Matrix c(kOrder * kOrder);
  int64_t wrong = 0;
  for (int call = 0; call < calls; ++call) {
    dense::multiply(dense::Transposed::no, dense::Transposed::no, kOrder, kOrder, kOrder, 1.0f, a.data(), kOrder,
                    b.data(), kOrder, 0.0f, c.data(), kOrder);
    wrong += c != expected;
  }
  return wrong;
}

TEST(DenseTest, InvertsInDoublePrecision) {
  // Upper triangular with ones: its inverse is known, and not symmetric.
  constexpr int64_t kSize = 70;
  std::vector<double> a(kSize * kSize);
  for (int64_t i = 0; i < kSize; ++i)
    for (int64_t j = i; j < kSize; ++j) a[static_cast<size_t>(i * kSize + j)] = 1;
  ASSERT_TRUE(dense::invert(kSize, a.data()));
  for (int64_t i = 0; i < kSize; ++i)
    for (int64_t j = 0; j < kSize; ++j)
      EXPECT_EQ(a[static_cast<size_t>(i * kSize + j)], i == j ? 1 : j == i + 1 ? -1 : 0) << i << ' ' << j;
  std::vector<double> singular = {1, 2, 2, 4};
  EXPECT_FALSE(dense::invert(2, singular.data()));
}

// Each thread must work in buffers of its own. Without a lock round OpenBLAS's buffers a third of these products were
// wrong on two cores.
TEST(DenseTest, ThreadsDoNotShareWorkBuffers) {
  constexpr int kThreads = 4, kCalls = 200'000;
  std::atomic<int64_t> wrong = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t) threads.emplace_back([&wrong, t] { wrong += count_wrong_products(t, kCalls); });
  }
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace mezzotint
