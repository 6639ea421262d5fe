#include "mezzotint/convert/optimizers/basis_factor.h"

#include "convert/conversion.h"
#include "mezzotint/convert/optimizers/feedback_rounder.h"
#include "mezzotint/convert/optimizers/objective.h"

namespace mezzotint::convert {
namespace {

constexpr int64_t kWidth = 300, kVectors = 7;

std::vector<float> some_vectors(std::mt19937_64& rng) {
  std::normal_distribution<double> normal(0, 1 / std::sqrt(kWidth));
  std::vector<float> basis(kWidth * kVectors);
  for (float& x : basis) x = static_cast<float>(normal(rng));
  return basis;
}

std::vector<int32_t> from_the_end() {
  std::vector<int32_t> columns(kWidth);
  for (size_t p = 0; p < columns.size(); ++p) columns[p] = static_cast<int32_t>(columns.size() - 1 - p);
  return columns;
}

TEST(BasisFactor, IsTheCholeskyFactor) {
  auto rng = test::test_rng();
  const std::vector<float> basis = some_vectors(rng);
  const std::vector<int32_t> columns = from_the_end();
  const double damping = 1.0 / 30;
  const BasisFactor factor(basis, kWidth, columns, damping);
  ASSERT_EQ(factor.rank, kVectors);
  const auto lower = [&](size_t q, size_t p) {
    if (q == p) return static_cast<double>(factor.pivot[p]);
    double sum = 0;
    for (size_t k = 0; q > p && k < kVectors; ++k)
      sum += static_cast<double>(factor.v[q * kVectors + k]) * static_cast<double>(factor.g[p * kVectors + k]);
    return sum;
  };
  double worst = 0, largest = 0;
  for (size_t a = 0; a < kWidth; a += 7)
    for (size_t b = 0; b <= a; ++b) {
      double got = 0, wanted = a == b ? damping : 0;
      for (size_t p = 0; p <= b; ++p) got += lower(a, p) * lower(b, p);
      for (size_t k = 0; k < kVectors; ++k)
        wanted += static_cast<double>(basis[k * kWidth + static_cast<size_t>(columns[a])]) *
                  static_cast<double>(basis[k * kWidth + static_cast<size_t>(columns[b])]);
      worst = std::max(worst, std::abs(got - wanted));
      if (a != b) largest = std::max(largest, std::abs(wanted));
    }
  EXPECT_LT(worst, 1e-7);
  EXPECT_GT(largest, 1e-3) << "a diagonal would have done";
}

// The sums that rounding reports are e H e' of what it returns.
TEST(BasisFactor, RoundsByIt) {
  auto rng = test::test_rng();
  constexpr int64_t rows = 37;
  const std::vector<float> basis = some_vectors(rng);
  const std::vector<int32_t> columns = from_the_end();
  const double damping = 1.0 / 30;
  const BasisFactor factor(basis, kWidth, columns, damping);
  const FeedbackRounder rounder(factor, 0, columns);
  std::vector<float> w(rows * kWidth);
  std::normal_distribution<double> normal;
  for (float& x : w) x = static_cast<float>(normal(rng));
  for (const std::string format : {"int8_row", "float8_e4m3fn"}) {
    const auto layout = layout_of(format, {rows, kWidth}).value();
    const formats::Tile tile{w.data(), DType::f32, 0, rows, 0, kWidth, kWidth};
    const auto parameters = formats::choose_parameters(layout, tile, {}, 1);
    FeedbackRounder::Workspace workspace;
    std::vector<float> out(w.size());
    const FeedbackSums sums = rounder.round(layout, parameters, tile, workspace, out.data(), 0);
    auto plain = formats::quantize(layout, tile, {}, {}, 1);
    const std::vector<float> nearest = formats::dequantize(layout, plain.parameters, 1);
    const auto energy = [&](const std::vector<float>& values) {
      double sum = 0;
      for (size_t r = 0; r < rows; ++r) {
        std::vector<double> seen(kVectors);
        for (size_t c = 0; c < kWidth; ++c) {
          const double e = static_cast<double>(values[r * kWidth + c]) - static_cast<double>(w[r * kWidth + c]);
          sum += damping * e * e;
          for (size_t k = 0; k < kVectors; ++k) seen[k] += e * static_cast<double>(basis[k * kWidth + c]);
        }
        for (const double s : seen) sum += s * s;
      }
      return sum;
    };
    EXPECT_NEAR(sums.rounded / energy(out), 1, 1e-4) << format;
    EXPECT_NEAR(sums.plain / energy(nearest), 1, 1e-4) << format;
    EXPECT_LT(sums.rounded, 0.8 * sums.plain) << format;
  }
}

TEST(BasisFactor, WithoutVectorsRoundingIsPlain) {
  auto rng = test::test_rng();
  const auto tensor = weight(rng, {20, kWidth}, DType::f32);
  const auto layout = layout_of("int8_row", {20, kWidth}).value();
  const formats::Tile tile{tensor.bytes.data(), DType::f32, 0, 20, 0, kWidth, kWidth};
  const std::vector<int32_t> columns = from_the_end();
  const BasisFactor factor({}, kWidth, columns, 1);
  const auto plain = formats::quantize(layout, tile, {}, {}, 1);
  FeedbackRounder::Workspace workspace;
  std::vector<float> out(20 * kWidth);
  FeedbackRounder(factor, 0, columns).round(layout, plain.parameters, tile, workspace, out.data(), 0);
  EXPECT_EQ(out, formats::dequantize(layout, plain.parameters, 1));
}

}  // namespace
}  // namespace mezzotint::convert
