#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "mezzotint/base/error.h"
#include "support/seed.h"
#include "synth/values.h"

namespace mezzotint::synth {
namespace {

std::vector<std::byte> bytes_of(const io::TensorSpec& spec, uint64_t seed) {
  std::vector<std::byte> out(byte_count(spec.dtype, spec.shape).value());
  fill(spec, seed, 0, element_count(spec.shape).value(), out.data());
  return out;
}

std::vector<float> floats_of(const std::string& name, Shape shape, uint64_t seed = 1) {
  const auto bytes = bytes_of({name, DType::f32, std::move(shape)}, seed);
  std::vector<float> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

double rms(const std::vector<float>& x, size_t first, size_t step, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += std::pow(x[first + i * step], 2);
  return std::sqrt(sum / static_cast<double>(count));
}

TEST(SynthValues, BytesDoNotDependOnHowATensorIsCut) {
  auto rng = test::test_rng();
  const io::TensorSpec tensors[] = {{"w", DType::bf16, {37, 129}},        {"w", DType::f32, {1, 5001}},
                                    {"w", DType::f16, {4099, 3}},         {"conv", DType::bf16, {17, 3, 3, 5}},
                                    {"norm.weight", DType::bf16, {5003}}, {"b", DType::u8, {5003}},
                                    {"ids", DType::i64, {3, 77}}};
  for (const auto& spec : tensors) {
    const auto whole = bytes_of(spec, 5);
    const uint64_t n = element_count(spec.shape).value(), width = facts(spec.dtype).bits / 8;
    std::vector<std::byte> cut(whole.size());
    for (uint64_t first = 0; first < n;) {
      const uint64_t count = std::min<uint64_t>(n - first, 1 + rng() % (n / 7));
      fill(spec, 5, first, count, cut.data() + first * width);
      first += count;
    }
    EXPECT_EQ(cut, whole) << spec.name << " " << to_string(spec.shape);
  }
}

TEST(SynthValues, SeedAndNameDecide) {
  const io::TensorSpec spec{"blocks.0.q.weight", DType::bf16, {64, 64}};
  EXPECT_EQ(bytes_of(spec, 1), bytes_of(spec, 1));
  EXPECT_NE(bytes_of(spec, 1), bytes_of(spec, 2));
  auto other = spec;
  other.name = "blocks.1.q.weight";
  EXPECT_NE(bytes_of(spec, 1), bytes_of(other, 1));
}

TEST(SynthValues, NarrowTypesAreTheRoundedFloats) {
  for (const auto& [name, shape] : std::map<std::string, Shape>{{"w", {512, 512}}, {"norm.weight", {5000}}}) {
    const auto exact = floats_of(name, shape, 3);
    const auto half = bytes_of({name, DType::f16, shape}, 3), brain = bytes_of({name, DType::bf16, shape}, 3);
    size_t subnormal = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      uint16_t h, b;
      std::memcpy(&h, &half[2 * i], 2);
      std::memcpy(&b, &brain[2 * i], 2);
      ASSERT_EQ(h, std::bit_cast<uint16_t>(static_cast<_Float16>(exact[i]))) << exact[i];
      subnormal += (h & 0x7c00) == 0;
      // No bf16 neighbour is nearer, and a tie went to the even one.
      const auto value = [](uint16_t code) { return std::bit_cast<float>(static_cast<uint32_t>(code) << 16); };
      const double error = std::fabs(double{value(b)} - exact[i]);
      for (const int step : {-1, 1}) {
        const double other = std::fabs(double{value(static_cast<uint16_t>(b + step))} - exact[i]);
        ASSERT_TRUE(error < other || (error == other && b % 2 == 0)) << exact[i];
      }
    }
    // Else the other half of the conversion went untried.
    EXPECT_TRUE(name != "w" || subnormal > 100) << subnormal;
  }
}

TEST(SynthValues, MatricesAreHeavyTailedWithOutlierColumnsAndRowScales) {
  constexpr size_t kRows = 1024, kCols = 4096;
  const auto w = floats_of("blocks.0.ffn.0.weight", {kRows, kCols});
  std::vector<double> columns(kCols), rows(kRows);
  for (size_t j = 0; j < kCols; ++j) columns[j] = rms(w, j, kCols, kRows);
  for (size_t i = 0; i < kRows; ++i) {
    // Without the outlier columns: the median of |w| in the row.
    std::vector<float> row(w.begin() + i * kCols, w.begin() + (i + 1) * kCols);
    for (auto& x : row) x = std::fabs(x);
    std::nth_element(row.begin(), row.begin() + kCols / 2, row.end());
    rows[i] = std::log(row[kCols / 2]);
  }
  auto sorted = columns;
  std::sort(sorted.begin(), sorted.end());
  const double typical = sorted[kCols / 2];
  EXPECT_NEAR(typical, 0.02, 0.006);
  const auto outliers = std::count_if(columns.begin(), columns.end(), [&](double c) { return c > 2.5 * typical; });
  EXPECT_GE(outliers, 1);
  EXPECT_LE(outliers, 16);
  EXPECT_LT(sorted.back(), 12 * typical);

  const double mean = std::accumulate(rows.begin(), rows.end(), 0.0) / kRows;
  double variance = 0;
  for (const double r : rows) variance += (r - mean) * (r - mean) / kRows;
  EXPECT_NEAR(std::sqrt(variance), 0.3, 0.05);

  // Tails: a normal matrix of this size would end at 5 deviations, far less than one value in 10^4 beyond 6.
  size_t counted = 0, beyond = 0;
  for (size_t i = 0; i < kRows; ++i)
    for (size_t j = 0; j < kCols; ++j)
      if (columns[j] < 2.5 * typical) ++counted, beyond += std::fabs(w[i * kCols + j]) > 6 * typical;
  EXPECT_GT(static_cast<double>(beyond), 1e-4 * static_cast<double>(counted));
  EXPECT_LT(static_cast<double>(beyond), 1e-2 * static_cast<double>(counted));
}

TEST(SynthValues, VectorsAreNearOneOrSmall) {
  for (const char* name : {"blocks.0.norm3.weight", "img_attn.norm.key_norm.scale", "in_layers.0.weight"}) {
    const auto x = floats_of(name, {4096});
    EXPECT_NEAR(std::accumulate(x.begin(), x.end(), 0.0) / 4096, 1, 0.01) << name;
    EXPECT_TRUE(std::all_of(x.begin(), x.end(), [](float v) { return std::fabs(v - 1) < 0.3f; })) << name;
  }
  for (const char* name : {"blocks.0.ffn.0.bias", "audio_scale_shift_table"}) {
    const auto x = floats_of(name, {4096});
    EXPECT_NEAR(rms(x, 0, 1, 4096), 0.02, 0.002) << name;
  }
}

TEST(SynthValues, PositionsCountAndOddDtypesAreErrors) {
  const auto bytes = bytes_of({"position_ids", DType::i64, {2, 77}}, 0);
  for (int64_t i = 0; i < 2 * 77; ++i) {
    int64_t value;
    std::memcpy(&value, &bytes[static_cast<size_t>(8 * i)], 8);
    ASSERT_EQ(value, i % 77);
  }
  EXPECT_THROW(bytes_of({"w", DType::f8_e4m3, {4, 4}}, 0), Error);
  EXPECT_NO_THROW(bytes_of({"empty", DType::bf16, {0, 4}}, 0));
}

}  // namespace
}  // namespace mezzotint::synth
