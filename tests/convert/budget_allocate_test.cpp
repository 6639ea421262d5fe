#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/budget/allocate.h"
#include "support/seed.h"

namespace mezzotint::convert {
namespace {

using test::test_rng;

uint64_t uniform(std::mt19937_64& rng, uint64_t below) {
  return rng() % below;
}

double cost_of(const std::vector<BudgetLayer>& layers, const std::vector<size_t>& choice) {
  double sum = 0;
  for (size_t l = 0; l < layers.size(); ++l) sum += layers[l].candidates[choice[l]].cost;
  return sum;
}

uint64_t bytes_of(const std::vector<BudgetLayer>& layers, uint64_t fixed, const std::vector<size_t>& choice) {
  uint64_t sum = fixed;
  for (size_t l = 0; l < layers.size(); ++l) sum += layers[l].candidates[choice[l]].bytes;
  return sum;
}

/// A single layer that could do better within the target, in words; empty = none.
std::string upgrade_that_fits(const std::vector<BudgetLayer>& layers, uint64_t target, const Allocation& result) {
  for (size_t l = 0; l < layers.size(); ++l) {
    const Candidate& now = layers[l].candidates[result.choice[l]];
    for (const Candidate& other : layers[l].candidates)
      if (other.cost < now.cost && result.bytes - now.bytes + other.bytes <= target)
        return layers[l].name + ": " + now.label + " -> " + other.label;
  }
  return "";
}

/// Every combination; the least cost that fits.
double best_cost(const std::vector<BudgetLayer>& layers, uint64_t fixed, uint64_t target) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<size_t> choice(layers.size(), 0);
  for (;;) {
    if (bytes_of(layers, fixed, choice) <= target) best = std::min(best, cost_of(layers, choice));
    size_t l = 0;
    while (l < layers.size() && ++choice[l] == layers[l].candidates.size()) choice[l++] = 0;
    if (l == layers.size()) return best;
  }
}

/// Layers of a few sizes, as models have them, or of any; candidates in any order, dominated ones among them.
std::vector<BudgetLayer> random_layers(std::mt19937_64& rng, size_t count, size_t most_candidates, uint64_t unit) {
  std::vector<BudgetLayer> layers;
  for (size_t l = 0; l < count; ++l) {
    BudgetLayer layer{"layer " + std::to_string(l), {}};
    const size_t candidates = 1 + uniform(rng, most_candidates);
    for (size_t c = 0; c < candidates; ++c)
      layer.candidates.push_back(
          {"format " + std::to_string(c), unit * (1 + uniform(rng, 20)),
           uniform(rng, 5) == 0 ? 0.0 : std::exp(-static_cast<double>(uniform(rng, 800)) / 100)});
    layers.push_back(std::move(layer));
  }
  return layers;
}

void expect_valid(const Allocator& allocator, uint64_t fixed, uint64_t target, const Allocation& result) {
  const auto& layers = allocator.layers();
  ASSERT_EQ(result.choice.size(), layers.size());
  EXPECT_EQ(result.bytes, bytes_of(layers, fixed, result.choice));
  EXPECT_DOUBLE_EQ(result.cost, cost_of(layers, result.choice));
  EXPECT_LE(result.bytes, target);
  EXPECT_EQ(upgrade_that_fits(layers, target, result), "");
}

TEST(Allocate, KeepsItsPromisesForEverySizeOfSmallModels) {
  auto rng = test_rng();
  double worst = 1, sum = 0;
  size_t count = 0;
  for (int round = 0; round < 60; ++round) {
    const uint64_t fixed = uniform(rng, 100);
    const Allocator allocator(random_layers(rng, 2 + uniform(rng, 5), 4, 1), fixed);
    double last = std::numeric_limits<double>::infinity();
    for (uint64_t target = allocator.least_bytes(); target <= allocator.most_bytes() + 3; ++target) {
      const Allocation result = allocator.for_bytes(target);
      expect_valid(allocator, fixed, target, result);
      EXPECT_LE(result.cost, last * (1 + 1e-12)) << "round " << round << ", target " << target;
      last = result.cost;
      const double best = best_cost(allocator.layers(), fixed, target);
      EXPECT_GE(result.cost, best * (1 - 1e-12));
      if (best > 0) {
        worst = std::max(worst, result.cost / best);
        sum += result.cost / best;
        ++count;
      }
    }
    EXPECT_DOUBLE_EQ(last, allocator.least_cost());
    if (HasFailure()) return;
  }
  // Near the optimum even where one layer is a large part of the model.
  EXPECT_LT(sum / static_cast<double>(count), 1.001);
  EXPECT_LT(worst, 1.1);
}

TEST(Allocate, KeepsItsPromisesForLargeModels) {
  auto rng = test_rng();
  for (int round = 0; round < 6; ++round) {
    const uint64_t unit = round % 2 == 0 ? 1 : 1'000'003;
    const uint64_t fixed = uniform(rng, 1000) * unit;
    const Allocator allocator(random_layers(rng, 300, 5, unit), fixed);
    const uint64_t least = allocator.least_bytes(), most = allocator.most_bytes();
    std::vector<uint64_t> targets = {least, most, most + 1};
    for (int i = 0; i < 60; ++i) targets.push_back(least + uniform(rng, most - least));
    const uint64_t near = least + (most - least) / 2;
    for (uint64_t i = 0; i < 40; ++i) targets.push_back(near + i * unit / 2);
    std::sort(targets.begin(), targets.end());
    double last = std::numeric_limits<double>::infinity();
    for (const uint64_t target : targets) {
      const Allocation result = allocator.for_bytes(target);
      expect_valid(allocator, fixed, target, result);
      EXPECT_LE(result.cost, last * (1 + 1e-12));
      last = result.cost;
    }
    if (HasFailure()) return;
  }
}

// Taking the best upgrade that fits is worse with 5 bytes than with 4: what the chain is for.
TEST(Allocate, MoreRoomNeverCostsMoreWhereGreedyWould) {
  const std::vector<BudgetLayer> layers = {{"big", {{"low", 0, 40}, {"high", 20, 0}}},
                                           {"a", {{"low", 0, 10}, {"high", 5, 0}}},
                                           {"b", {{"low", 0, 9}, {"high", 3, 0}}},
                                           {"c", {{"low", 0, 8}, {"high", 1, 0}}}};
  const auto greedy = [&](uint64_t room) {
    std::vector<size_t> choice(layers.size(), 0);
    for (;;) {
      size_t best = layers.size();
      for (size_t l = 0; l < layers.size(); ++l) {
        const auto& c = layers[l].candidates;
        if (choice[l] == 0 && c[1].bytes <= room &&
            (best == layers.size() || c[0].cost > layers[best].candidates[0].cost))
          best = l;
      }
      if (best == layers.size()) return cost_of(layers, choice);
      choice[best] = 1;
      room -= layers[best].candidates[1].bytes;
    }
  };
  EXPECT_GT(greedy(5), greedy(4));
  const Allocator allocator(layers, 0);
  double last = 100;
  for (uint64_t target = 0; target <= 30; ++target) {
    const double cost = allocator.for_bytes(target).cost;
    EXPECT_LE(cost, last) << target;
    EXPECT_LE(cost, best_cost(layers, 0, target) + 2) << target;
    last = cost;
  }
  EXPECT_EQ(last, 0);
}

TEST(Allocate, TheLeastSizeForAnErrorIsTheOneThatForBytesReachesItAt) {
  auto rng = test_rng();
  for (int round = 0; round < 40; ++round) {
    const uint64_t fixed = uniform(rng, 50);
    const Allocator allocator(random_layers(rng, 3 + uniform(rng, 6), 4, 1), fixed);
    const double top = allocator.for_bytes(allocator.least_bytes()).cost;
    for (const double share : {1.0, 0.9, 0.5, 0.2, 0.05, 0.0}) {
      const double most = allocator.least_cost() + share * (top - allocator.least_cost());
      const Allocation result = allocator.for_cost(most);
      EXPECT_LE(result.cost, most);
      EXPECT_EQ(result.bytes, bytes_of(allocator.layers(), fixed, result.choice));
      EXPECT_EQ(allocator.for_bytes(result.bytes).cost, result.cost);
      if (result.bytes > allocator.least_bytes()) {
        EXPECT_GT(allocator.for_bytes(result.bytes - 1).cost, most);
      }
    }
  }
}

TEST(Allocate, SaysWhatCannotBeReached) {
  const Allocator allocator({{"a", {{"small", 40, 2}, {"large", 80, 0.5}}}}, 60);
  EXPECT_EQ(allocator.least_bytes(), 100u);
  EXPECT_EQ(allocator.most_bytes(), 140u);
  EXPECT_EQ(allocator.for_bytes(100).choice, std::vector<size_t>{0});
  EXPECT_EQ(allocator.for_bytes(139).choice, std::vector<size_t>{0});
  EXPECT_EQ(allocator.for_bytes(140).choice, std::vector<size_t>{1});
  EXPECT_EQ(allocator.for_cost(0.5).choice, std::vector<size_t>{1});
  try {
    allocator.for_bytes(99);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "budget-too-small");
    EXPECT_NE(std::string(error.what()).find("at least 100 bytes"), std::string::npos) << error.what();
  }
  try {
    allocator.for_cost(0.4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "budget-too-strict");
  }
}

TEST(Allocate, TiesGoToTheEarlierLayer) {
  const BudgetLayer same{"same", {{"low", 1, 1}, {"also low", 1, 1}, {"high", 2, 0}, {"also high", 2, 0}}};
  const Allocator allocator({same, same, same}, 0);
  EXPECT_EQ(allocator.for_bytes(3).choice, (std::vector<size_t>{0, 0, 0}));
  EXPECT_EQ(allocator.for_bytes(4).choice, (std::vector<size_t>{2, 0, 0}));
  EXPECT_EQ(allocator.for_bytes(5).choice, (std::vector<size_t>{2, 2, 0}));
}

// A candidate above the hull is no step of the path, but it may be what fits into the rest.
TEST(Allocate, FillsWithCandidatesAboveTheHull) {
  const std::vector<BudgetLayer> layers = {{"a", {{"low", 0, 10}, {"middle", 6, 8}, {"high", 10, 0}}}};
  const Allocator allocator(layers, 0);
  EXPECT_EQ(allocator.for_bytes(5).choice, std::vector<size_t>{0});
  EXPECT_EQ(allocator.for_bytes(6).choice, std::vector<size_t>{1});
  EXPECT_EQ(allocator.for_bytes(10).choice, std::vector<size_t>{2});
}

TEST(Allocate, NoLayersIsTheFixedPart) {
  const Allocator allocator({}, 7);
  EXPECT_EQ(allocator.for_bytes(7).bytes, 7u);
  EXPECT_EQ(allocator.for_cost(0).cost, 0);
}

}  // namespace
}  // namespace mezzotint::convert
