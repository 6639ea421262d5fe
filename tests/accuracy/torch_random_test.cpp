#include "support/torch_random.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mezzotint::test {
namespace {

// Printed by torch 2.13 on a CPU: g = torch.Generator().manual_seed(1000); torch.randn(1024, 1024, generator=g), then
// torch.randn(37, generator=g) and torch.randn(20, generator=g), whose last blocks are drawn twice.
TEST(TorchGenerator, DrawsTheNumbersOfTorch) {
  struct Expected {
    size_t index;
    float value;
  };
  TorchGenerator generator(1000);
  const auto expect = [](const std::vector<float>& drawn, std::initializer_list<Expected> expected) {
    for (const auto& [index, value] : expected)
      EXPECT_NEAR(drawn.at(index), value, 4e-7f * std::fabs(value)) << index << " of " << drawn.size();
  };
  const std::vector<float> large = generator.randn(1024 * 1024);
  expect(large, {{0, -0.5305590033531189f},
                 {1, -1.1299705505371094f},
                 {8, 0.6976396441459656f},
                 {15, 0.33502739667892456f},
                 {16, -1.174889326095581f},
                 {500000, -1.1019914150238037f},
                 {1048575, -0.1865263134241104f}});
  expect(generator.randn(37),
         {{0, 1.1358076333999634f}, {20, 1.5590311288833618f}, {21, -0.7299858927726746f}, {36, 0.2274669110774994f}});
  expect(generator.randn(20),
         {{0, -0.42764413356781006f}, {3, -1.136961579322815f}, {4, -2.1919455528259277f}, {19, -2.6577038764953613f}});
  double sum = 0, squares = 0, slope = 0;
  for (size_t i = 0; i < large.size(); ++i) {
    const auto x = static_cast<double>(large[i]);
    sum += x;
    squares += x * x;
    slope += x * static_cast<double>(i) / static_cast<double>(large.size());
  }
  EXPECT_NEAR(sum, -1093.1535834874796, 1e-3);
  EXPECT_NEAR(squares, 1049047.4318766082, 1e-2);
  EXPECT_NEAR(slope, -619.7899885899576, 1e-3);
}

}  // namespace
}  // namespace mezzotint::test
