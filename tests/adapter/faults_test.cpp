// Faults of ComfyUI's and LyCORIS's merges that golden_test.cpp does not reach; docs/differences.md lists all of them.
// Every test computes what the reference program makes of the file, too, and sees that it is something else.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "adapter/adapter_file.h"
#include "mezzotint/base/error.h"

namespace mezzotint::adapter {
namespace {

using test::adapter_file;
using test::merged;
using test::random_tensor;
using test::relative_error;
using test::scalar;
using test::stack_of;
using test::TemporaryFolder;

constexpr double kNear = 2e-6;

std::vector<double> product(const Tensor& a, const Tensor& b) {
  std::vector<double> out(static_cast<size_t>(a.rows() * b.cols()));
  for (int64_t i = 0; i < a.rows(); ++i)
    for (int64_t j = 0; j < b.cols(); ++j)
      for (int64_t k = 0; k < a.cols(); ++k)
        out[static_cast<size_t>(i * b.cols() + j)] +=
            static_cast<double>(a.row(i)[k]) * static_cast<double>(b.row(k)[j]);
  return out;
}

std::vector<float> plus(const std::vector<float>& weight, const std::vector<double>& delta, double factor) {
  std::vector<float> out(weight.size());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<float>(static_cast<double>(weight[i]) + factor * delta[i]);
  return out;
}

// ComfyUI: the last class that matches wins, so the LoRA is lost.
TEST(AdapterFaults, TwoAlgorithmsUnderOneTargetBothCount) {
  const TemporaryFolder folder;
  const Tensor up = random_tensor({4, 2}, 1), down = random_tensor({2, 3}, 2), weight = random_tensor({4, 3}, 3);
  const Tensor a1 = random_tensor({4, 2}, 4), b1 = random_tensor({2, 3}, 5), a2 = random_tensor({4, 2}, 6),
               b2 = random_tensor({2, 3}, 7);
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", up},
                                                 {"x.lora_down.weight", down},
                                                 {"x.hada_w1_a", a1},
                                                 {"x.hada_w1_b", b1},
                                                 {"x.hada_w2_a", a2},
                                                 {"x.hada_w2_b", b2}});
  ASSERT_EQ(file.patches().size(), 2u);
  std::vector<double> loha = product(a1, b1);
  const std::vector<double> second = product(a2, b2);
  for (size_t i = 0; i < loha.size(); ++i) loha[i] *= second[i];
  const std::vector<float> theirs = plus(weight.values, loha, 1), ours = plus(theirs, product(up, down), 1);
  const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
  EXPECT_LT(relative_error(out, ours), kNear);
  EXPECT_GT(relative_error(out, theirs), 0.01);
}

// ComfyUI reshapes whatever has as many elements.
TEST(AdapterFaults, FactorsOfAnotherShapeAreRefused) {
  const TemporaryFolder folder;
  const AdapterFile file = adapter_file(
      folder, {{"x.lora_up.weight", random_tensor({4, 2}, 1)}, {"x.lora_down.weight", random_tensor({2, 16}, 2)}});
  EXPECT_EQ(misfit(file.patches()[0], {8, 8}), "it is made for a weight of 4x16, this is 8x8");
  EXPECT_EQ(misfit(file.patches()[0], {4, 16}), "");
  EXPECT_EQ(misfit(file.patches()[0], {4, 4, 2, 2}), "");  // a convolution's flat factors
  EXPECT_THROW(load(file, file.patches()[0], {8, 8}), Error);
}

// A linear layer may come with the factors of a 1x1 convolution (ComfyUI's bypass crashes).
TEST(AdapterFaults, LinearLayersTakeFactorsOfConvolutions) {
  const TemporaryFolder folder;
  Tensor up = random_tensor({4, 2, 1, 1}, 1), down = random_tensor({2, 3, 1, 1}, 2);
  const Tensor weight = random_tensor({4, 3}, 3);
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", up}, {"x.lora_down.weight", down}});
  EXPECT_LT(
      relative_error(merged(stack_of(file, weight.shape, 1), weight.values), plus(weight.values, product(up, down), 1)),
      kNear);
}

// With one output, ComfyUI takes magnitudes [1, I] for those of outputs.
TEST(AdapterFaults, OneOutputStillHasMagnitudesOfInputs) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({1, 3}, 3), magnitude{{1, 3}, {1.5f, 2.5f, 0.5f}};
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", random_tensor({1, 2}, 1)},
                                                 {"x.lora_down.weight", random_tensor({2, 3}, 2)},
                                                 {"x.dora_scale", magnitude}});
  const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(std::abs(out[i]), magnitude.values[i], 1e-6);
}

// ComfyUI divides by the rows of W instead of those of W + delta.
TEST(AdapterFaults, MagnitudesOfOutputsAreLengths) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({4, 8}, 3), magnitude{{4, 1}, {1.5f, 2.5f, 0.5f, 0.0f}};
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", random_tensor({4, 2}, 1)},
                                                 {"x.lora_down.weight", random_tensor({2, 8}, 2)},
                                                 {"x.dora_scale", magnitude}});
  const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
  for (size_t r = 0; r < 4; ++r) {
    double squares = 0;
    for (size_t c = 0; c < 8; ++c) squares += static_cast<double>(out[r * 8 + c]) * static_cast<double>(out[r * 8 + c]);
    EXPECT_NEAR(std::sqrt(squares), magnitude.values[r], 1e-6);
  }
}

// A row of zeros has no direction; nothing is divided by zero. (ComfyUI and LyCORIS add an epsilon to every length.)
TEST(AdapterFaults, MagnitudesOfZeroRows) {
  const TemporaryFolder folder;
  for (const Shape& magnitude : {Shape{2, 1}, Shape{1, 3}}) {
    const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", {{2, 1}, {0, 0}}},
                                                   {"x.lora_down.weight", random_tensor({1, 3}, 2)},
                                                   {"x.dora_scale", random_tensor(magnitude, 4)}});
    EXPECT_EQ(merged(stack_of(file, {2, 3}, 1), std::vector<float>(6)), std::vector<float>(6));
  }
}

// PEFT's vector has one dimension; in a square layer ComfyUI (which does not know its name) would spread it over
// columns.
TEST(AdapterFaults, VectorsOfMagnitudesAreOfOutputs) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({3, 3}, 3), magnitude{{3}, {1.5f, 2.5f, 0.5f}};
  for (const std::string name : {"x.dora_scale", "x.lora_magnitude_vector", "x.lora_magnitude_vector.default.weight"}) {
    const AdapterFile file = adapter_file(folder, {{"x.lora_B.weight", random_tensor({3, 2}, 1)},
                                                   {"x.lora_A.weight", random_tensor({2, 3}, 2)},
                                                   {name, magnitude}});
    EXPECT_TRUE(file.unused().empty());
    const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
    for (size_t r = 0; r < 3; ++r)
      EXPECT_NEAR(std::hypot(out[r * 3], out[r * 3 + 1], out[r * 3 + 2]), magnitude.values[r], 1e-6) << name;
  }
}

// All square: both layouts fit. ComfyUI takes the old one, which nobody has written for years.
TEST(AdapterFaults, SquareGloraIsOfTheNewLayout) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({3, 3}, 3), a1 = random_tensor({3, 3}, 4), a2 = random_tensor({3, 3}, 5),
               b1 = random_tensor({3, 3}, 6), b2 = random_tensor({3, 3}, 7);
  const AdapterFile file =
      adapter_file(folder, {{"x.a1.weight", a1}, {"x.a2.weight", a2}, {"x.b1.weight", b1}, {"x.b2.weight", b2}});
  const auto result = [&](const Tensor& left, const Tensor& right, const Tensor& up, const Tensor& down) {
    Tensor a{{3, 3}, {}};
    for (const double x : product(left, right)) a.values.push_back(static_cast<float>(x));
    return plus(plus(weight.values, product(weight, a), 1), product(up, down), 1);
  };
  const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
  EXPECT_LT(relative_error(out, result(a1, a2, b1, b2)), kNear);
  EXPECT_GT(relative_error(out, result(a2, a1, b2, b1)), 0.01);
}

// LyCORIS's rs_lora stores alpha * sqrt(rank), but of GLoRA just alpha.
TEST(AdapterFaults, RankStabilizedGloraKeepsItsScale) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({5, 6}, 3), b1 = random_tensor({5, 4}, 6), b2 = random_tensor({4, 6}, 7);
  const test::NamedTensors tensors = {{"x.a1.weight", {{6, 4}, std::vector<float>(24)}},
                                      {"x.a2.weight", random_tensor({4, 6}, 5)},
                                      {"x.b1.weight", b1},
                                      {"x.b2.weight", b2},
                                      {"x.alpha", scalar(3)}};
  const std::vector<float> stabilized = plus(weight.values, product(b1, b2), 1.5),
                           plain = plus(weight.values, product(b1, b2), 0.75);
  for (const bool rs : {true, false}) {
    const AdapterFile file =
        adapter_file(folder, tensors,
                     {{"ss_network_module", "lycoris.kohya"},
                      {"ss_network_args", rs ? R"({"algo": "glora", "rs_lora": "True"})" : R"({"algo": "glora"})"}});
    const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
    EXPECT_LT(relative_error(out, rs ? stabilized : plain), kNear);
  }
  // LoRA from the same trainer is stored adjusted.
  const AdapterFile lora =
      adapter_file(folder, {{"x.lora_up.weight", b1}, {"x.lora_down.weight", b2}, {"x.alpha", scalar(3)}},
                   {{"ss_network_module", "lycoris.kohya"}, {"ss_network_args", R"({"rs_lora": "True"})"}});
  EXPECT_LT(relative_error(merged(stack_of(lora, weight.shape, 1), weight.values), plain), kNear);
}

// LyCORIS with rs_lora trains LoKr of whole sides times sqrt(rank), here 2, and stores rank * sqrt(rank) as alpha.
TEST(AdapterFaults, RankStabilizedLokrOfWholeSidesKeepsItsScale) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({3, 6}, 3), w1{{1, 1}, {2}}, w2 = random_tensor({3, 6}, 5);
  const Tensor a = random_tensor({3, 4}, 6), b = random_tensor({4, 6}, 7);
  std::vector<double> whole(w2.values.begin(), w2.values.end());
  for (const bool rs : {true, false}) {
    const std::map<std::string, std::string> metadata = {
        {"ss_network_module", "lycoris.kohya"},
        {"ss_network_args", rs ? R"({"algo": "lokr", "rs_lora": "True"})" : R"({"algo": "lokr"})"}};
    const AdapterFile file =
        adapter_file(folder, {{"x.lokr_w1", w1}, {"x.lokr_w2", w2}, {"x.alpha", scalar(rs ? 8 : 4)}}, metadata);
    EXPECT_LT(
        relative_error(merged(stack_of(file, weight.shape, 1), weight.values), plus(weight.values, whole, rs ? 4 : 2)),
        kNear);
    // A product's alpha is stored adjusted.
    const AdapterFile factored = adapter_file(
        folder, {{"x.lokr_w1", w1}, {"x.lokr_w2_a", a}, {"x.lokr_w2_b", b}, {"x.alpha", scalar(8)}}, metadata);
    EXPECT_LT(relative_error(merged(stack_of(factored, weight.shape, 1), weight.values),
                             plus(weight.values, product(a, b), 4)),
              kNear);
  }
}

// GLoRA's A sees what patches in front left.
TEST(AdapterFaults, GloraSeesPatchesInFront) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({2, 3}, 3), diff = random_tensor({2, 3}, 8), a1 = random_tensor({3, 1}, 4),
               a2 = random_tensor({1, 3}, 5);
  const AdapterFile file = adapter_file(folder, {{"x.a1.weight", a1},
                                                 {"x.a2.weight", a2},
                                                 {"x.b1.weight", {{2, 1}, {0, 0}}},
                                                 {"x.b2.weight", random_tensor({1, 3}, 6)},
                                                 {"x.diff", diff}});
  Tensor sum = weight, a{{3, 3}, {}};
  for (size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += diff.values[i];
  for (const double x : product(a1, a2)) a.values.push_back(static_cast<float>(x));
  ASSERT_EQ(file.patches()[0].algorithm->name, "diff");
  EXPECT_LT(
      relative_error(merged(stack_of(file, weight.shape, 1), weight.values), plus(sum.values, product(sum, a), 1)),
      kNear);
}

// Lengths stay: rotations are orthogonal, whatever the strength of their bound, and 1 is what ComfyUI's square of the
// strength and LyCORIS's agree in.
TEST(AdapterFaults, RotationsKeepLengths) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({16, 5}, 3);
  for (const Shape& blocks : {Shape{4, 4, 4}, Shape{2, 8, 8}, Shape{3, 4, 4, 4}}) {
    for (const float alpha : {0.0f, 0.125f}) {
      Tensor generators = random_tensor(blocks, 4);
      for (float& x : generators.values) x *= 30;  // far from the identity
      const AdapterFile file = adapter_file(folder, {{"x.oft_blocks", generators}, {"x.alpha", scalar(alpha)}});
      const std::vector<float> out = merged(stack_of(file, weight.shape, 1), weight.values);
      for (size_t c = 0; c < 5; ++c) {
        double before = 0, after = 0;
        for (size_t r = 0; r < 16; ++r) {
          before += std::pow(static_cast<double>(weight.values[r * 5 + c]), 2);
          after += std::pow(static_cast<double>(out[r * 5 + c]), 2);
        }
        EXPECT_NEAR(after, before, 1e-5 * before);
      }
      EXPECT_GT(relative_error(out, weight.values), 0.01);
    }
  }
}

// ReadOptions say it where metadata do not.
TEST(AdapterFaults, BoundsCountPerRowWhereAsked) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({8, 5}, 3), blocks = random_tensor({2, 4, 4}, 4);
  const test::NamedTensors per_row = {{"x.oft_blocks", blocks}, {"x.alpha", scalar(0.0625f)}};
  const test::NamedTensors whole = {{"x.oft_blocks", blocks}, {"x.alpha", scalar(0.5f)}};
  const auto merge = [&](const test::NamedTensors& tensors, std::optional<bool> asked) {
    return merged(stack_of(adapter_file(folder, tensors, {}, {asked}), weight.shape, 1), weight.values);
  };
  EXPECT_EQ(merge(per_row, true), merge(whole, std::nullopt));
  EXPECT_EQ(merge(per_row, false), merge(per_row, std::nullopt));
  EXPECT_GT(relative_error(merge(per_row, false), merge(whole, false)), 0.01);
}

// IA3 of PEFT holds the factors themselves.
TEST(AdapterFaults, Ia3OfPeft) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({2, 3}, 3);
  const AdapterFile file = adapter_file(folder, {{"x.ia3_l", {{1, 3}, {0.5f, 1.0f, 3.0f}}}});
  const std::vector<float> out = merged(stack_of(file, weight.shape, 0.5), weight.values);
  const double factors[] = {0.75, 1, 2};
  for (size_t i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(out[i], static_cast<float>(weight.values[i] * factors[i % 3]));
}

// A replacement has no strength, but at 0 nothing happens.
TEST(AdapterFaults, ReplacementsHaveNoStrength) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({4}, 3), value = random_tensor({4}, 4);
  const AdapterFile file = adapter_file(folder, {{"x.set_weight", value}});
  EXPECT_EQ(merged(stack_of(file, weight.shape, 0.1), weight.values), value.values);
  EXPECT_EQ(merged(stack_of(file, weight.shape, 0), weight.values), weight.values);
}

}  // namespace
}  // namespace mezzotint::adapter
