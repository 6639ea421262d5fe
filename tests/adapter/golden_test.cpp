// Merges of every algorithm and kind of layer against make_golden.py.
#include <gtest/gtest.h>

#include <set>

#include "adapter/golden_cases.h"
#include "support/closed_form.h"

namespace mezzotint::adapter {
namespace {

using test::golden_merges;
using test::GoldenMerge;
using test::merged;
using test::relative_error;

// Sums of at most 36 products in float32, and a Cayley transform rounded once.
constexpr double kMergeBound = 2e-6;

class GoldenMergeTest : public testing::TestWithParam<GoldenMerge> {};

TEST_P(GoldenMergeTest, EqualsTheClosedForm) {
  const GoldenMerge& golden = GetParam();
  const test::TemporaryFolder folder;
  const AdapterFile file = test::adapter_file(folder, golden.tensors, golden.metadata);
  EXPECT_TRUE(file.unused().empty());
  ASSERT_EQ(file.patches().size(), 1u);
  const Stack stack = test::stack_of(file, golden.weight.shape, golden.strength);
  EXPECT_LT(relative_error(merged(stack, golden.weight.values), golden.expected), kMergeBound);

  // Controls: strength counts (but for replacements), and what the algorithm is fed with, too.
  const Stack weaker = test::stack_of(file, golden.weight.shape, golden.strength * 0.97);
  if (golden.algorithm != "set") {
    EXPECT_GT(relative_error(merged(weaker, golden.weight.values), golden.expected), 100 * kMergeBound);
  }
  EXPECT_GT(relative_error(golden.weight.values, golden.expected), 100 * kMergeBound);

  // Strength 0 leaves the weight; runs of rows give the same as the whole.
  EXPECT_EQ(merged(test::stack_of(file, golden.weight.shape, 0), golden.weight.values), golden.weight.values);
  std::vector<float> pieces = golden.weight.values;
  for (const RowRun& run : stack.cut(1)) stack.apply(run, pieces.data() + run.row0 * matrix_cols(stack.shape()));
  EXPECT_LT(relative_error(pieces, golden.expected), kMergeBound);

  if (stack.additive()) {
    std::vector<float> delta = merged(stack, std::vector<float>(golden.weight.values.size()));
    for (size_t i = 0; i < delta.size(); ++i) delta[i] += golden.weight.values[i];
    EXPECT_LT(relative_error(delta, golden.expected), kMergeBound);
  }
}

// The oracle of the matrices (docs/adapters.md), which merges weights of any size.
TEST_P(GoldenMergeTest, IsTheClosedFormOfOtherTests) {
  const GoldenMerge& golden = GetParam();
  const test::ClosedForm form(golden.tensors, "x", golden.weight.shape, golden.per_row());
  const auto at = [&](double strength) {
    const auto values = form.merge({golden.weight.values.begin(), golden.weight.values.end()}, strength);
    return std::vector<float>(values.begin(), values.end());
  };
  EXPECT_LT(relative_error(at(golden.strength), golden.expected), 1e-7);
  if (golden.algorithm != "set") {
    EXPECT_GT(relative_error(at(golden.strength * 0.97), golden.expected), 1e-4);
  }
  EXPECT_EQ(at(0), golden.weight.values);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenMergeTest, testing::ValuesIn(golden_merges()), [](const auto& golden) {
  std::string name = golden.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name + "_" + std::to_string(golden.index);
});

// Every algorithm, and DoRA, has every kind of layer.
TEST(GoldenMerges, CoverAlgorithmsAndKinds) {
  std::set<std::string> algorithms = {"dora"};
  for (const Algorithm* algorithm : all_algorithms()) algorithms.emplace(algorithm->name);
  std::set<std::pair<std::string, std::string>> seen;
  for (const GoldenMerge& merge : golden_merges()) seen.emplace(merge.algorithm, merge.kind);
  for (const std::string& algorithm : algorithms)
    for (const std::string kind : {"linear", "conv1d", "conv2d", "conv3d"})
      EXPECT_TRUE(seen.contains({algorithm, kind})) << algorithm << " " << kind;
}

}  // namespace
}  // namespace mezzotint::adapter
