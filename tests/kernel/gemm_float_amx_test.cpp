// The amx level's bf16 kernel on emulated tile registers: its source is the one that runs on AMX machines.
#define MEZZOTINT_ISA scalar
#include "mezzotint/kernel/gemm/bf16_amx.h"

#include "kernel/emulated_tiles.h"
#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

using Product = AmxBf16<EmulatedTiles>;

struct Case {
  std::vector<uint16_t> a, panel;  ///< rows kPackedRowBytes apart; pairs of the reduction by 32 columns
  std::vector<float> before, fold;
  int64_t dwords;
};
constexpr int64_t kStride = Product::kColumns + 5;

Case make_case(int64_t dwords, std::mt19937_64& rng) {
  Case c;
  c.dwords = dwords;
  c.a.resize(Product::kRows * kPackedRowBytes / 2);
  c.panel.resize(static_cast<size_t>(dwords * Product::kColumns * 2));
  c.before.resize(Product::kRows * kStride);
  c.fold.resize(Product::kColumns);
  std::normal_distribution<float> normal;
  for (auto* list : {&c.a, &c.panel})
    for (uint16_t& code : *list) code = static_cast<uint16_t>(Bf16::encode(normal(rng)));
  for (auto* list : {&c.before, &c.fold})
    for (float& v : *list) v = normal(rng);
  return c;
}

/// How many sums differ from double precision by more than (depth + 2) * 2^-24 * sum of magnitudes, or lie outside of
/// the tile and have changed.
int violations(const Case& c, const std::vector<float>& got, bool fold, bool accumulate) {
  int count = 0;
  for (int64_t m = 0; m < Product::kRows; ++m)
    for (int64_t n = 0; n < kStride; ++n) {
      const auto at = static_cast<size_t>(m * kStride + n);
      if (n >= Product::kColumns) {
        count += got[at] != c.before[at];
        continue;
      }
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < 2 * c.dwords; ++k) {
        const double product =
            static_cast<double>(Bf16::decode(c.a[static_cast<size_t>(m * kPackedRowBytes / 2 + k)])) *
            Bf16::decode(c.panel[static_cast<size_t>((k / 2 * Product::kColumns + n) * 2 + k % 2)]);
        sum += product;
        magnitude += std::abs(product);
      }
      if (fold) sum *= c.fold[static_cast<size_t>(n)], magnitude *= std::abs(c.fold[static_cast<size_t>(n)]);
      if (accumulate) sum += c.before[at], magnitude += std::abs(c.before[at]);
      count += !(std::abs(got[at] - sum) <= static_cast<double>(2 * c.dwords + 2) * 0x1p-24 * magnitude);
    }
  return count;
}

TEST(FloatAmx, MultipliesOnTiles) {
  auto rng = test_rng();
  for (const int64_t dwords : {16, 48, 256})
    for (const bool fold : {false, true})
      for (const bool accumulate : {false, true}) {
        Case c = make_case(dwords, rng);
        std::vector<float> got = c.before;
        EmulatedTiles tiles;
        tiles.configure();
        Product::multiply(tiles, dwords, c.a.data(), c.panel.data(), got.data(), kStride,
                          fold ? c.fold.data() : nullptr, accumulate);
        EXPECT_EQ(violations(c, got, fold, accumulate), 0) << dwords << fold << accumulate;
        c.panel[5] = static_cast<uint16_t>(Bf16::encode(Bf16::decode(c.panel[5]) + 0.5f));  // one weight: one column
        EXPECT_GT(violations(c, got, fold, accumulate), Product::kRows / 2);
      }
}

}  // namespace
}  // namespace mezzotint::kernel::test
