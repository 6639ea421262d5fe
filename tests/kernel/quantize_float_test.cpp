#include "mezzotint/kernel/gemm/quantize_float.h"

#include "kernel/matrix.h"
#include "mezzotint/kernel/gemm/float_gemm.h"

namespace mezzotint::kernel::test {
namespace {

using mezzotint::test::FloatSpec;

constexpr int64_t kRows = 5, kCols = 83;

/// Activations with a zero row and a row of one outlier.
std::vector<float> activations(std::mt19937_64& rng) {
  std::vector<float> x(kRows * kCols);
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(rng);
  std::fill_n(x.begin() + kCols, kCols, 0.0f);
  x[3 * kCols + 7] = 300;
  return x;
}

/// What an operand means after row_scales, by multiplication with the identity.
std::vector<float> decoded(const Operand& m, const float* row_scales) {
  std::vector<float> identity(static_cast<size_t>(m.cols * m.cols)), y(static_cast<size_t>(m.rows * m.cols));
  for (int64_t i = 0; i < m.cols; ++i) identity[static_cast<size_t>(i * m.cols + i)] = 1;
  FloatGemm p;
  p.x = m;
  p.w = Operand::of({identity.data(), DType::f32, m.cols, m.cols, m.cols});
  p.epilogue.row_scale = row_scales;
  std::vector<uint8_t> scratch(float_gemm_scratch(p, 1));
  float_gemm(p, {y.data(), DType::f32, m.cols}, scratch.data(), 1);
  return y;
}

/// Elements farther from x than `relative` of it plus `step` of the largest of its block of `block` columns (0: of the
/// row).
int violations(const std::vector<float>& x, const std::vector<float>& y, double relative, double step, int64_t block) {
  int count = 0;
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t c = 0; c < kCols; ++c) {
      const int64_t first = block == 0 ? 0 : c / block * block,
                    end = block == 0 ? kCols : std::min(kCols, first + block);
      double largest = 0;
      for (int64_t i = first; i < end; ++i)
        largest = std::max(largest, std::abs(1.0 * x[static_cast<size_t>(r * kCols + i)]));
      const double v = x[static_cast<size_t>(r * kCols + c)];
      count +=
          !(std::abs(y[static_cast<size_t>(r * kCols + c)] - v) <= relative * std::abs(v) + step * largest + 1e-30);
    }
  return count;
}

/// Every relative bound must notice when everything is read 25% larger.
void check(const std::vector<float>& x, std::vector<float> y, double relative, double step, int64_t block) {
  EXPECT_EQ(violations(x, y, relative, step, block), 0);
  for (float& v : y) v *= 1.25f;
  EXPECT_GT(violations(x, y, relative, step, block), kCols);
}

TEST(QuantizeFloat, Fp8) {
  auto rng = test_rng();
  const std::vector<float> x = activations(rng);
  const Source source{x.data(), DType::f32, kRows, kCols, kCols};
  std::vector<float> rows(kRows);
  std::vector<uint8_t> codes(kRows * kCols);
  // Half a step: 2^-4 and 2^-3 relative; below the normal range half of the smallest step, over the largest code.
  const Operand e4m3 = quantize_fp8(source, DType::f8_e4m3, {}, rows.data(), codes.data());
  check(x, decoded(e4m3, rows.data()), 0x1.01p-4, 0x1p-10 / 448 * 1.01, 0);
  EXPECT_EQ(rows[3], 300.0f / 448);
  const Operand e5m2 = quantize_fp8(source, DType::f8_e5m2, {}, rows.data(), codes.data());
  check(x, decoded(e5m2, rows.data()), 0x1.01p-3, 0x1p-17 / 57344 * 1.01, 0);

  const Operand tensor = quantize_fp8(source, DType::f8_e4m3, {FloatScaling::Of::tensor}, rows.data(), codes.data());
  EXPECT_EQ(rows, std::vector<float>(kRows, 300.0f / 448));
  EXPECT_EQ(decoded(tensor, rows.data())[3 * kCols + 7], 300.0f);

  // ComfyUI without input_scale: 1, clipped at 448.
  std::vector<float> large = x;
  large[5] = 1000;
  const Operand given = quantize_fp8({large.data(), DType::f32, kRows, kCols, kCols}, DType::f8_e4m3,
                                     {FloatScaling::Of::given, 1.0f}, rows.data(), codes.data());
  EXPECT_EQ(decoded(given, rows.data())[5], 448.0f);
}

TEST(QuantizeFloat, Fp4) {
  auto rng = test_rng();
  const std::vector<float> x = activations(rng);
  std::vector<float> rows(kRows);
  std::vector<uint8_t> codes(kRows * (kCols / 2 + 1)), blocks(kRows * 6);
  for (const auto of : {FloatScaling::Of::row, FloatScaling::Of::tensor}) {
    const Operand m =
        quantize_fp4({x.data(), DType::f32, kRows, kCols, kCols}, {of}, rows.data(), codes.data(), blocks.data());
    // Steps are at most 2 of 6, and the scale of a block is rounded to E4M3, by 2^-4 at most.
    const double bound = 1.0 / 6 * (1 + 0x1.01p-4);
    std::vector<float> y = decoded(m, rows.data());
    EXPECT_EQ(violations(x, y, 0, bound, 16), 0);
    for (float& v : y) v *= 1.25f;
    EXPECT_GT(violations(x, y, 0, bound, 16), 0);
  }
}

TEST(QuantizeFloat, Mx) {
  auto rng = test_rng();
  const std::vector<float> x = activations(rng);
  std::vector<uint8_t> codes(kRows * kCols), blocks(kRows * 3);
  const Operand m = quantize_mx({x.data(), DType::f32, kRows, kCols, kCols}, codes.data(), blocks.data());
  check(x, decoded(m, nullptr), 0x1.01p-4, 0x1p-10 / 224, 32);
}

/// Codes times codes: all products are exact, so y differs from double precision by the sums' rounding alone.
TEST(QuantizeFloat, ProductsOfCodes) {
  auto rng = test_rng();
  const std::vector<float> x = activations(rng), w = activations(rng);
  std::vector<float> x_rows(kRows), w_rows(kRows);
  std::vector<uint8_t> x_codes(kRows * kCols), w_codes(x_codes.size()), x_blocks(kRows * 6), w_blocks(x_blocks.size());
  const auto source = [](const std::vector<float>& v) { return Source{v.data(), DType::f32, kRows, kCols, kCols}; };
  for (const int kind : {0, 1, 2}) {
    const auto quantize = [&](const std::vector<float>& v, std::vector<float>& rows, std::vector<uint8_t>& codes,
                              std::vector<uint8_t>& blocks) {
      if (kind == 0) return quantize_fp8(source(v), DType::f8_e4m3, {}, rows.data(), codes.data());
      if (kind == 1) return quantize_fp4(source(v), {}, rows.data(), codes.data(), blocks.data());
      std::fill(rows.begin(), rows.end(), 1.0f);
      return quantize_mx(source(v), codes.data(), blocks.data());
    };
    FloatGemm p;
    p.x = quantize(x, x_rows, x_codes, x_blocks);
    p.w = quantize(w, w_rows, w_codes, w_blocks);
    const std::vector<float> a = decoded(p.x, nullptr), b = decoded(p.w, nullptr);
    p.epilogue.row_scale = x_rows.data();
    p.epilogue.col_scale = w_rows.data();
    std::vector<float> y(kRows * kRows);
    std::vector<uint8_t> scratch(float_gemm_scratch(p, 1));
    float_gemm(p, {y.data(), DType::f32, kRows}, scratch.data(), 1);
    for (size_t m = 0; m < kRows; ++m)
      for (size_t n = 0; n < kRows; ++n) {
        double sum = 0, magnitude = 0;
        for (size_t k = 0; k < kCols; ++k) {
          const double product = static_cast<double>(a[m * kCols + k]) * b[n * kCols + k];
          sum += product, magnitude += std::abs(product);
        }
        const double scale = static_cast<double>(x_rows[m]) * w_rows[n],
                     bound = (kCols + 4) * 0x1p-24 * magnitude * scale;
        EXPECT_NEAR(y[m * kRows + n], sum * scale, bound + 0x1p-140);
        if (magnitude > 0 && std::abs(sum) > 0.01 * magnitude) {
          EXPECT_GT(std::abs(y[m * kRows + n] * 1.0625 - sum * scale), bound);
        }
      }
  }
}

}  // namespace
}  // namespace mezzotint::kernel::test
