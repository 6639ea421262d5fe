// Merges of every algorithm and kind of layer against make_golden.py.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "adapter/adapter_file.h"

namespace mezzotint::adapter {
namespace {

using test::merged;
using test::relative_error;

// Sums of at most 36 products in float32, and a Cayley transform rounded once.
constexpr double kMergeBound = 2e-6;

std::vector<float> unhex(const std::string& hex) {
  std::vector<float> values(hex.size() / 8);
  for (size_t i = 0; i < values.size(); ++i) {
    unsigned char bytes[4];
    for (size_t b = 0; b < 4; ++b)
      bytes[b] = static_cast<unsigned char>(std::stoi(hex.substr(i * 8 + b * 2, 2), nullptr, 16));
    std::memcpy(&values[i], bytes, 4);
  }
  return values;
}

struct GoldenMerge {
  std::string name;
  Tensor weight;
  test::NamedTensors tensors;
  std::map<std::string, std::string> metadata;
  double strength = 1;
  std::vector<float> expected;
};

void PrintTo(const GoldenMerge& merge, std::ostream* out) {
  *out << merge.name;
}

std::vector<GoldenMerge> golden_merges() {
  std::vector<GoldenMerge> cases;
  for (const auto& file : std::filesystem::directory_iterator(MEZZOTINT_SOURCE_DIR "/tests/adapter/golden")) {
    const nlohmann::json golden = test::read_json(file.path().string());
    for (const auto& entry : golden["cases"]) {
      GoldenMerge merge{entry["name"],     test::tensor_of(entry["weight"]),           {}, {},
                        entry["strength"], unhex(entry["expected"].get<std::string>())};
      for (const auto& [suffix, tensor] : entry["tensors"].items())
        merge.tensors.emplace_back("x" + suffix, test::tensor_of(tensor));
      if (entry.contains("metadata")) merge.metadata = entry["metadata"].get<std::map<std::string, std::string>>();
      cases.push_back(std::move(merge));
    }
  }
  return cases;
}

class GoldenMergeTest : public testing::TestWithParam<GoldenMerge> {};

TEST_P(GoldenMergeTest, EqualsTheClosedForm) {
  const GoldenMerge& golden = GetParam();
  const test::TemporaryFolder folder;
  const AdapterFile file = test::adapter_file(folder, golden.tensors, golden.metadata);
  EXPECT_TRUE(file.unused().empty());
  ASSERT_EQ(file.patches().size(), 1u);
  const Stack stack = test::stack_of(file, golden.weight.shape, golden.strength);
  EXPECT_LT(relative_error(merged(stack, golden.weight.values), golden.expected), kMergeBound);

  // Controls: strength counts, and what the algorithm is fed with, too.
  const Stack weaker = test::stack_of(file, golden.weight.shape, golden.strength * 0.97);
  EXPECT_GT(relative_error(merged(weaker, golden.weight.values), golden.expected), 100 * kMergeBound);
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

INSTANTIATE_TEST_SUITE_P(All, GoldenMergeTest, testing::ValuesIn(golden_merges()), [](const auto& golden) {
  std::string name = golden.param.name;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name + "_" + std::to_string(golden.index);
});

// Every algorithm that has a file here has every kind of layer.
TEST(GoldenMerges, CoverAlgorithmsAndKinds) {
  std::map<std::string, int> count;
  for (const GoldenMerge& merge : golden_merges()) {
    const size_t space = merge.name.find(' ');
    ++count[merge.name.substr(0, merge.name.find(' ', space + 1))];
  }
  for (const std::string algorithm : {"lora", "loha", "lokr", "oft", "boft", "glora", "dora", "ia3"})
    for (const std::string kind : {"linear", "conv1d", "conv2d", "conv3d"})
      EXPECT_GE(count[algorithm + " " + kind], 2) << algorithm << " " << kind;
}

}  // namespace
}  // namespace mezzotint::adapter
