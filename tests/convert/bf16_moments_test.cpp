#include <cmath>

#include "convert/conversion.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/convert/optimizers/hessian.h"
#include "mezzotint/convert/optimizers/subspace_rank.h"

// Second moments of weights in bf16 products, and the other small choices of how a layer is rounded.
namespace mezzotint::convert {
namespace {

using test::RawFile;

/// A panel [rows, n] transposed to bf16, and the same values in double.
struct Panel {
  int64_t n, rows;
  std::vector<uint16_t> bits;
  std::vector<double> values;

  Panel(std::mt19937_64& rng, int64_t columns, int64_t height) : n(columns), rows(height) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n * rows; ++i) {
      bits.push_back(static_cast<uint16_t>(Bf16::encode(normal(rng))));
      values.push_back(static_cast<double>(Bf16::decode(bits.back())));
    }
  }
};

TEST(Bf16Moments, AreTheSumsOfExactProducts) {
  auto rng = test::test_rng();
  TileBuffers buffers;
  for (const int64_t n : {1, 300, 1100}) {
    const Panel panel(rng, n, 77);
    LowerTiles h(n);
    for (const TilePair pair : tile_pairs(h.across()))
      for (int times = 0; times < 2; ++times)  // adds to what is there
        add_panel_bf16(h, pair, panel.bits.data(), panel.rows, panel.rows, buffers);
    double worst = 0, worst_of_rounded = 0;
    for (const auto& [i, j] : tile_pairs(h.across())) {
      const float* tile = h.read(i, j, nullptr);
      for (int64_t a = h.first(i); a < h.first(i) + h.size(i); a += 7)
        for (int64_t b = h.first(j); b < std::min(a + 1, h.first(j) + h.size(j)); b += 5) {
          double sum = 0, size = 0;
          for (int64_t r = 0; r < panel.rows; ++r) {
            const double product = panel.values[static_cast<size_t>(a * panel.rows + r)] *
                                   panel.values[static_cast<size_t>(b * panel.rows + r)];
            sum += 2 * product;
            size += 2 * std::fabs(product);
          }
          // float_gemm.h: (R + 4) roundings of a product's sum, and one of the addition to the tile.
          const double bound = static_cast<double>(panel.rows + 5) * 0x1p-24 * size;
          const double got = static_cast<double>(tile[(a - h.first(i)) * LowerTiles::kTile + b - h.first(j)]);
          worst = std::max(worst, std::fabs(got - sum) / bound);
          // What an H rounded to bf16 would be off by.
          const double rounded = static_cast<double>(Bf16::decode(Bf16::encode(static_cast<float>(sum))));
          worst_of_rounded = std::max(worst_of_rounded, std::fabs(rounded - sum) / bound);
        }
    }
    EXPECT_LE(worst, 1) << n;
    EXPECT_GT(worst_of_rounded, 1) << "the bound would not notice an error";
  }
}

TEST(SubspaceRank, IsThatOfTheProgramsWhoseNamesItHas) {
  const SubspaceRank rank;
  EXPECT_EQ(rank.of(5120, 13824), 1024);  // 0.2 * 5120
  EXPECT_EQ(rank.of(1024, 1024), 256);    // at least
  EXPECT_EQ(rank.of(200, 1024), 200);     // all there are
  EXPECT_EQ(rank.of(8192, 8192), 1280);   // at most
  EXPECT_EQ((SubspaceRank{.top_p = 0.5, .min_k = 1, .max_k = 100000}.of(300, 601)), 150);
  EXPECT_NO_THROW(rank.check());
  for (const SubspaceRank wrong : {SubspaceRank{.top_p = 0}, SubspaceRank{.top_p = 1.5}, SubspaceRank{.top_p = NAN},
                                   SubspaceRank{.min_k = 0}, SubspaceRank{.min_k = 9, .max_k = 8}})
    EXPECT_THROW(wrong.check(), Error);
}

class ComputeChoice : public Conversion {
 protected:
  /// What each layer's Hessian is made with.
  std::set<bool> bf16(DType dtype, Bf16Compute mode, const std::string& to = "int8_row") {
    auto rng = test::test_rng();
    std::set<bool> seen;
    for (const PlanRow& row : plan(small_model(rng, dtype), {.to = to, .effort = 2, .bf16_compute = mode}).rows)
      if (row.method.objective) seen.insert(row.method.objective->bf16_moments);
    return seen;
  }
};

TEST_F(ComputeChoice, LosesNothingUnlessAsked) {
  const std::set<bool> yes{has_bf16_products()}, no{false};
  EXPECT_EQ(bf16(DType::bf16, Bf16Compute::automatic), yes);
  EXPECT_EQ(bf16(DType::f32, Bf16Compute::automatic), no);
  EXPECT_EQ(bf16(DType::f16, Bf16Compute::automatic), no);
  EXPECT_EQ(bf16(DType::bf16, Bf16Compute::automatic, "int8_convrot:convrot_groupsize=16"), no)
      << "rotated values are not bf16";
  EXPECT_EQ(bf16(DType::bf16, Bf16Compute::off), no);
  EXPECT_EQ(bf16(DType::f32, Bf16Compute::on), yes);
}

TEST_F(ComputeChoice, ChangesHardlyACode) {
  auto rng = test::test_rng();
  for (const DType dtype : {DType::bf16, DType::f32}) {
    const RawFile model = small_model(rng, dtype);
    const RawFile off = convert(model, {.to = "int8_row", .effort = 3, .bf16_compute = Bf16Compute::off});
    const RawFile on = convert(model, {.to = "int8_row", .effort = 3, .bf16_compute = Bf16Compute::on});
    size_t codes = 0, changed = 0;
    for (const auto& [name, tensor] : off.tensors) {
      if (!name.ends_with(".weight") || tensor.dtype != "I8") continue;
      const auto* other = on.find(name);
      ASSERT_NE(other, nullptr);
      for (size_t i = 0; i < tensor.bytes.size(); ++i) changed += tensor.bytes[i] != other->bytes[i];
      codes += tensor.bytes.size();
    }
    EXPECT_GT(codes, 0u);
    EXPECT_LE(changed, codes / 50);
  }
}

}  // namespace
}  // namespace mezzotint::convert
