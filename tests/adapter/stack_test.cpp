// Several adapters on one tensor: order, slices, runs of rows.
#include "mezzotint/adapter/stack.h"

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
using test::TemporaryFolder;

AdapterFile lora_file(const TemporaryFolder& folder, int64_t rows, int64_t cols, uint64_t seed) {
  return adapter_file(folder, {{"x.lora_up.weight", random_tensor({rows, 2}, seed)},
                               {"x.lora_down.weight", random_tensor({2, cols}, seed + 1)}});
}

// A fused weight of three times 8 rows: a LoRA on all, a rotation of the middle slice, DoRA on the last one.
TEST(StackTest, RunsOfRowsGiveTheSameAsTheWhole) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({24, 5}, 1);
  const Target all{"x", 0, 0, false}, middle{"x", 8, 8, false}, last{"x", 16, 8, false};
  const AdapterFile lora = lora_file(folder, 24, 5, 10);
  Stack stack(weight.shape);
  stack.add(load(lora, lora.patches()[0], stack.shape_of(all)), 0.5, all);
  const AdapterFile oft = adapter_file(folder, {{"x.oft_blocks", random_tensor({2, 4, 4}, 2)}});
  stack.add(load(oft, oft.patches()[0], stack.shape_of(middle)), 1, middle);
  const AdapterFile dora = adapter_file(folder, {{"x.lora_up.weight", random_tensor({8, 2}, 3)},
                                                 {"x.lora_down.weight", random_tensor({2, 5}, 4)},
                                                 {"x.dora_scale", random_tensor({1, 5}, 5)}});
  stack.add(load(dora, dora.patches()[0], stack.shape_of(last)), 1, last);
  EXPECT_FALSE(stack.additive());

  std::vector<bool> cuts;
  for (int64_t row = 0; row <= 24; ++row) cuts.push_back(stack.may_cut(row));
  for (const int64_t row : {0, 3, 8, 12, 16, 24}) EXPECT_TRUE(cuts[static_cast<size_t>(row)]) << row;
  for (const int64_t row : {9, 13, 17, 23}) EXPECT_FALSE(cuts[static_cast<size_t>(row)]) << row;

  const std::vector<float> whole = merged(stack, weight.values);
  for (const int64_t rows : {1, 3, 5, 24, 100}) {
    std::vector<float> pieces = weight.values;
    int64_t next = 0;
    for (const RowRun& run : stack.cut(rows)) {
      EXPECT_EQ(run.row0, next);
      next += run.rows;
      stack.apply(run, pieces.data() + run.row0 * 5);
    }
    EXPECT_EQ(next, 24);
    EXPECT_LT(relative_error(pieces, whole), 1e-6) << rows;
  }
}

TEST(StackTest, OrderCountsWhereItShould) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({8, 5}, 1);
  const Target all{"x", 0, 0, false};
  const AdapterFile first = lora_file(folder, 8, 5, 10);
  const TemporaryFolder other;
  const AdapterFile second = lora_file(other, 8, 5, 20);
  const TemporaryFolder third;
  const AdapterFile rotation = adapter_file(third, {{"x.oft_blocks", random_tensor({2, 4, 4}, 2)}});
  const auto run = [&](std::initializer_list<const AdapterFile*> files) {
    Stack stack(weight.shape);
    for (const AdapterFile* file : files) stack.add(load(*file, file->patches()[0], weight.shape), 1, all);
    return merged(stack, weight.values);
  };
  EXPECT_LT(relative_error(run({&first, &second}), run({&second, &first})), 1e-6);
  EXPECT_GT(relative_error(run({&first, &rotation}), run({&rotation, &first})), 0.01);
}

TEST(StackTest, AddsUpAndTakesBack) {
  const TemporaryFolder folder;
  const Tensor weight = random_tensor({8, 5}, 1);
  const Target all{"x", 0, 0, false};
  const AdapterFile file = lora_file(folder, 8, 5, 10);
  Stack stack(weight.shape);
  stack.add(load(file, file.patches()[0], weight.shape), 0.75, all);
  EXPECT_TRUE(stack.additive());
  const LowRank* factors = stack.items()[0].effect->low_rank();
  ASSERT_TRUE(factors);
  EXPECT_EQ(factors->rank(), 2);
  stack.add(load(file, file.patches()[0], weight.shape), -0.75, all);
  EXPECT_LT(relative_error(merged(stack, weight.values), weight.values), 1e-6);
}

TEST(StackTest, RefusesRowsThatAreNotThere) {
  Stack stack({8, 5});
  EXPECT_THROW(stack.shape_of({"x", 4, 8, false}), Error);
  EXPECT_THROW(stack.shape_of({"x", 8, 0, false}), Error);
  EXPECT_THROW(stack.shape_of({"x", 0, 7, true}), Error);
  EXPECT_EQ(stack.shape_of({"x", 4, 4, true}), (Shape{4, 5}));
}

// Values that are not finite stay where they are.
TEST(StackTest, KeepsWhatIsNotFiniteInItsRow) {
  const TemporaryFolder folder;
  Tensor weight = random_tensor({4, 3}, 1);
  weight.values[4] = NAN;
  const AdapterFile file = adapter_file(folder, {{"x.lora_up.weight", random_tensor({4, 2}, 3)},
                                                 {"x.lora_down.weight", random_tensor({2, 3}, 4)},
                                                 {"x.dora_scale", random_tensor({4, 1}, 5)}});
  const std::vector<float> out = merged(test::stack_of(file, weight.shape, 1), weight.values);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isfinite(out[i]), i / 3 != 1) << i;
}

TEST(StackTest, RejectsBrokenFiles) {
  const TemporaryFolder folder;
  const Tensor up = random_tensor({4, 2}, 1), down = random_tensor({2, 3}, 2);
  EXPECT_THROW(adapter_file(folder, {{"x.lora_up.weight", up}, {"x.lora_down.weight", down}, {"x.alpha", scalar(NAN)}}),
               Error);
  for (const float size : {NAN, -1.0f, 1e30f, 2.0f}) {
    const AdapterFile file = adapter_file(
        folder, {{"x.lora_up.weight", up}, {"x.lora_down.weight", down}, {"x.reshape_weight", {{2}, {4, size}}}});
    EXPECT_THROW(load(file, file.patches()[0], {4, 3}), Error) << size;
    EXPECT_THROW(outlook(file, file.patches()[0], {4, 3}), Error) << size;
  }
  EXPECT_THROW(adapter_file(folder, {{"x.lora_up.weight", {{4, 0}, {}}}, {"x.lora_down.weight", {{0, 3}, {}}}}), Error);
  // No alpha and alpha 0 are the same: kohya and LyCORIS take 0 for the rank.
  const AdapterFile zero =
      adapter_file(folder, {{"x.lora_up.weight", up}, {"x.lora_down.weight", down}, {"x.alpha", scalar(0)}});
  EXPECT_EQ(zero.patches()[0].alpha, std::nullopt);
}

// Every algorithm says no to shapes that are not its own instead of reading past them.
TEST(StackTest, MisfitsAreNamed) {
  const TemporaryFolder folder;
  const auto refused = [&](const test::NamedTensors& tensors) {
    const AdapterFile file = adapter_file(folder, tensors);
    return misfit(file.patches()[0], {4, 6});
  };
  const auto t = [](Shape shape) { return random_tensor(std::move(shape), 1); };
  EXPECT_NE(refused({{"x.lora_up.weight", t({4, 3})}, {"x.lora_down.weight", t({2, 6})}}), "");
  EXPECT_NE(
      refused({{"x.lora_up.weight", t({4, 2})}, {"x.lora_down.weight", t({2, 6})}, {"x.lora_mid.weight", t({2})}}), "");
  EXPECT_NE(refused({{"x.hada_w1_a", t({4, 2})},
                     {"x.hada_w1_b", t({3, 6})},
                     {"x.hada_w2_a", t({4, 2})},
                     {"x.hada_w2_b", t({2, 6})}}),
            "");
  EXPECT_NE(refused({{"x.hada_w1_a", t({4, 2})},
                     {"x.hada_w1_b", t({2, 6})},
                     {"x.hada_w2_a", t({4, 2})},
                     {"x.hada_w2_b", t({2, 6})},
                     {"x.hada_t1", t({2, 2})}}),
            "");
  EXPECT_NE(refused({{"x.lokr_w1", t({2, 2})}, {"x.lokr_w2", t({2, 2})}}), "");
  EXPECT_NE(refused({{"x.lokr_w1", t({2, 2})}, {"x.lokr_w2_a", t({2})}, {"x.lokr_w2_b", t({2, 3})}}), "");
  EXPECT_NE(refused({{"x.oft_blocks", t({2, 2, 3})}}), "");
  EXPECT_NE(refused({{"x.oft_blocks", t({2, 2, 2})}, {"x.rescale", t({3, 1})}}), "");
  EXPECT_NE(refused({{"x.oft_blocks", t({1, 4, 1, 1})}}), "");
  EXPECT_NE(refused({{"x.oft_blocks", t({3, 2, 2, 2})}}), "");  // stages of 2, 4 and 8 rows
  EXPECT_NE(refused({{"x.a1.weight", t({6, 2})},
                     {"x.a2.weight", t({2, 6})},
                     {"x.b1.weight", t({4, 2})},
                     {"x.b2.weight", t({2, 5})}}),
            "");
  EXPECT_NE(refused({{"x.a1.weight", t({6})},
                     {"x.a2.weight", t({2, 6})},
                     {"x.b1.weight", t({4, 2})},
                     {"x.b2.weight", t({2, 6})}}),
            "");
  EXPECT_NE(refused({{"x.diff", t({6, 4})}}), "");
  EXPECT_NE(refused({{"x.set_weight", t({24})}}), "");
  EXPECT_NE(refused({{"x.ia3_l", t({6, 1})}}), "");
  EXPECT_NE(refused({{"x.lora_up.weight", t({4, 2})}, {"x.lora_down.weight", t({2, 6})}, {"x.dora_scale", t({5})}}),
            "");
  EXPECT_EQ(refused({{"x.lora_up.weight", t({4, 2})}, {"x.lora_down.weight", t({2, 6})}, {"x.dora_scale", t({4})}}),
            "");
}

}  // namespace
}  // namespace mezzotint::adapter
