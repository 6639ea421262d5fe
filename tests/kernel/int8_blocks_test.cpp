#include "mezzotint/kernel/gemm/int8_blocks.h"

#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

int64_t blocks(int64_t n) {
  return (n + 127) / 128;
}

/// Block-wise codes with gaps; scales per row and 128 codes, or per `block_rows` rows.
struct Data {
  Matrix codes, scales;
  int64_t block_rows;

  Data(int64_t rows, int64_t cols, int64_t per = 1)
      : codes(rows, cols, 1, 3, 1), scales((rows + per - 1) / per, blocks(cols), 4, 1), block_rows(per) {}
  Data(int64_t rows, int64_t cols, int64_t per, std::mt19937_64& rng) : Data(rows, cols, per) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) codes.set(r, c, static_cast<int8_t>(static_cast<int>(rng() % 255) - 127));
    for (int64_t r = 0; r < scales.rows(); ++r)
      for (int64_t b = 0; b < scales.cols(); ++b)
        scales.set(r, b, std::exp2(std::uniform_real_distribution<float>(-8, -5)(rng)));
  }
  Int8Codes in() {
    return {reinterpret_cast<int8_t*>(codes.data()), codes.stride(), reinterpret_cast<float*>(scales.data()),
            scales.stride()};
  }
  Int8BlockOutput out() {
    return {reinterpret_cast<int8_t*>(codes.data()), codes.stride(), reinterpret_cast<float*>(scales.data()),
            scales.stride()};
  }
  float scale(int64_t r, int64_t c) { return scales.get<float>(r / block_rows, c / 128); }
  float value(int64_t r, int64_t c) { return static_cast<float>(codes.get<int8_t>(r, c)) * scale(r, c); }
  bool untouched() { return codes.neighbours_untouched() && scales.neighbours_untouched(); }
  friend bool operator==(Data& a, Data& b) {
    return a.codes.elements() == b.codes.elements() && a.scales.elements() == b.scales.elements();
  }
};

constexpr std::pair<int64_t, int64_t> kSizes[] = {{1, 1}, {3, 130}, {130, 3}, {257, 140}, {128, 128}, {17, 300}};

/// The scalar level's result, which every level and thread count must give.
template <class F>
Data same_everywhere(const Data& blank, F run) {
  Data first = blank;
  {
    const ScopedIsaCap cap(Isa::scalar);
    run(first, 1);
  }
  for (const Isa isa : enabled_isas())
    for (const int threads : {1, 2}) {
      const ScopedIsaCap cap(isa);
      Data other = blank;
      run(other, threads);
      EXPECT_TRUE(other == first) << name(isa);
      EXPECT_TRUE(other.untouched()) << name(isa);
    }
  return first;
}

// A code is within half a step of the value; scales are amax / 127. gelu's own error: 64 eps of |value|
// (gemm_int8_test).
TEST(Int8Blocks, GeluIsQuantizedAgain) {
  auto rng = test_rng();
  int controls = 0;
  for (const auto& [rows, cols] : kSizes) {
    Data x(rows, cols, 1, rng);
    Data y = same_everywhere(Data(rows, cols),
                             [&, r = rows, c = cols](Data& out, int t) { int8_gelu(x.in(), r, c, out.out(), t); });
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t b = 0; b < blocks(cols); ++b) {
        double amax = 0, largest = 0;
        for (int64_t c = b * 128; c < std::min(cols, b * 128 + 128); ++c) {
          const double v = x.value(r, c),
                       exact = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
          const double bound = y.scale(r, c) * (0.5 + 128 * 0x1p-24) + 64 * 0x1p-24 * std::abs(v);
          EXPECT_LE(std::abs(y.value(r, c) - exact), bound);
          controls += std::abs(y.value(r, c) - std::max(v, 0.0)) > bound;
          amax = std::max(amax, std::abs(exact));
          largest = std::max(largest, std::abs(v));
        }
        EXPECT_NEAR(y.scale(r, b * 128), std::max(amax / 127, 1e-30), (64 * largest + 2 * amax) / 127 * 0x1p-24);
      }
  }
  EXPECT_GT(controls, 0) << "relu is another function";
}

TEST(Int8Blocks, GeluInPlaceIsTheSame) {
  auto rng = test_rng();
  Data x(5, 300, 1, rng), y(5, 300);
  int8_gelu(x.in(), 5, 300, y.out());
  int8_gelu(x.in(), 5, 300, x.out());
  EXPECT_TRUE(x == y);
}

TEST(Int8Blocks, TransposedActivationsAreQuantizedAlongTheNewRows) {
  auto rng = test_rng();
  for (const auto& [rows, cols] : kSizes) {
    Data x(rows, cols, 1, rng);
    Data y = same_everywhere(Data(cols, rows),
                             [&, r = rows, c = cols](Data& out, int t) { int8_transpose(x.in(), r, c, out.out(), t); });
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t b = 0; b < blocks(rows); ++b) {
        float amax = 0;
        for (int64_t r = b * 128; r < std::min(rows, b * 128 + 128); ++r)
          amax = std::max(amax, std::abs(x.value(r, c)));
        const float scale = std::max(amax / 127, 1e-30f);
        ASSERT_EQ(y.scale(c, b * 128), scale);
        for (int64_t r = b * 128; r < std::min(rows, b * 128 + 128); ++r)
          ASSERT_EQ(y.codes.get<int8_t>(c, r), std::nearbyint(x.value(r, c) / scale));
      }
  }
}

TEST(Int8Blocks, TransposedWeightsKeepEveryBit) {
  auto rng = test_rng();
  for (const auto& [rows, cols] : kSizes) {
    Data w(rows, cols, 128, rng);
    Data y = same_everywhere(Data(cols, rows, 128), [&, r = rows, c = cols](Data& out, int) {
      int8_transpose_weight(w.in(), r, c, out.out());
    });
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) ASSERT_EQ(y.value(c, r), w.value(r, c));
  }
}

}  // namespace
}  // namespace mezzotint::kernel::test
