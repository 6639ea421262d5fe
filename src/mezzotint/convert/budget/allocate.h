#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/// Choosing one of several ways to store every layer, so that all of them fit a size and the cost is small: the pure
/// part of a size budget, which knows nothing of formats and files.
namespace mezzotint::convert {

/// One way to store a layer.
struct Candidate {
  std::string label;
  uint64_t bytes = 0;
  double cost = 0;  ///< finite, not negative; costs of layers add up
};

struct BudgetLayer {
  std::string name;
  std::vector<Candidate> candidates;  ///< at least one
};

struct Allocation {
  std::vector<size_t> choice;  ///< by layer, index of the candidate
  uint64_t bytes = 0;          ///< with the fixed part
  double cost = 0;
};

/// Allocations of one set of layers for any target.
///
/// The candidates of a layer that lie on its lower convex hull of (bytes, cost) form steps; all steps of all layers,
/// taken by falling gain per byte, are the path of a Lagrange multiplier, and every point of it is the optimum for its
/// own size. Between two points what is left is filled: a chain of allocations of growing size and falling cost is
/// made from single upgrades and from greedy fills of several sizes, none of which depends on the target, and the last
/// one that fits is taken. Therefore:
///
///   * bytes never exceed the target;
///   * no single layer could go to a candidate of lower cost and still fit;
///   * a larger target never costs more (up to the rounding of sums);
///   * equal input gives equal output: ties go to the earlier layer and the earlier candidate.
class Allocator {
 public:
  Allocator(std::vector<BudgetLayer> layers, uint64_t fixed_bytes);

  const std::vector<BudgetLayer>& layers() const { return layers_; }
  uint64_t least_bytes() const { return path_bytes_.front(); }
  /// Smallest size at which every layer has its lowest cost.
  uint64_t most_bytes() const { return path_bytes_.back(); }
  double least_cost() const { return cost_of(path(steps_.size())); }

  /// Throws Error "budget-too-small" where even the smallest choice is over the target.
  Allocation for_bytes(uint64_t target) const;
  /// The smallest allocation of the chain whose cost is at most `most`; for_bytes() of any smaller target costs more.
  /// Throws Error "budget-too-strict" where there is none.
  Allocation for_cost(double most) const;

 private:
  struct Step {
    size_t layer, to;  ///< index in options_[layer]
    uint64_t bytes;
    double gain_per_byte;
  };
  using Choice = std::vector<size_t>;  ///< index in options_, by layer
  struct State {
    Choice choice;
    uint64_t bytes = 0;
    double cost = 0;
  };
  enum class By { gain, gain_per_byte };

  double cost_of(const Choice& choice) const;
  uint64_t bytes_of(const Choice& choice) const;
  State state_of(Choice choice) const;
  /// Choices after so many steps.
  Choice path(size_t steps) const;
  /// Takes the best upgrade that fits until none does.
  void fill(Choice& choice, uint64_t room, By by) const;
  /// Takes back what costs least for the bytes that it frees, until so many bytes are free.
  void take_back(Choice& choice, uint64_t excess) const;
  /// The allocations that greedy fills find between two points of the path, by size.
  std::vector<State> fills(size_t steps) const;
  /// Goes along the chain from a point of the path while `go_on` says so of the next state, at most up to the next
  /// point.
  template <class GoOn>
  State chain(size_t steps, GoOn go_on) const;
  Allocation finished(const State& state) const;

  std::vector<BudgetLayer> layers_;
  uint64_t fixed_;
  std::vector<std::vector<size_t>> options_;  ///< by layer: candidates of rising bytes and falling cost
  std::vector<Step> steps_;
  std::vector<uint64_t> path_bytes_;  ///< after 0, 1, ... steps
};

}  // namespace mezzotint::convert
