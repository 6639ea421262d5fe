#include "mezzotint/convert/budget/allocate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <optional>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {
namespace {

// Sizes between two points of the path for which greedy fills are tried. More of them find better fills of small
// models; large ones hardly have a gap.
constexpr uint64_t kFillSizes = 32;

/// Candidates that are worth a thought: no other one is as small and as cheap.
std::vector<size_t> undominated(const std::vector<Candidate>& candidates) {
  std::vector<size_t> order(candidates.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return candidates[a].bytes != candidates[b].bytes ? candidates[a].bytes < candidates[b].bytes
                                                      : candidates[a].cost < candidates[b].cost;
  });
  std::vector<size_t> kept;
  for (const size_t i : order)
    if (kept.empty() || candidates[i].cost < candidates[kept.back()].cost) kept.push_back(i);
  return kept;
}

double slope(const Candidate& a, const Candidate& b) {
  return (a.cost - b.cost) / static_cast<double>(b.bytes - a.bytes);
}

}  // namespace

Allocator::Allocator(std::vector<BudgetLayer> layers, uint64_t fixed_bytes)
    : layers_(std::move(layers)), fixed_(fixed_bytes) {
  for (size_t l = 0; l < layers_.size(); ++l) {
    const auto& candidates = layers_[l].candidates;
    assert(!candidates.empty());
    assert(std::all_of(candidates.begin(), candidates.end(),
                       [](const Candidate& c) { return std::isfinite(c.cost) && c.cost >= 0; }));
    options_.push_back(undominated(candidates));
    const auto& options = options_.back();
    const auto at = [&](size_t option) -> const Candidate& { return candidates[options[option]]; };
    std::vector<size_t> hull;  // indices in options
    for (size_t i = 0; i < options.size(); ++i) {
      while (hull.size() >= 2 && slope(at(hull[hull.size() - 2]), at(hull.back())) <= slope(at(hull.back()), at(i)))
        hull.pop_back();
      hull.push_back(i);
    }
    double last = std::numeric_limits<double>::infinity();
    for (size_t h = 1; h < hull.size(); ++h) {
      // Rounding must not turn the order of a layer's own steps round.
      last = std::min(last, slope(at(hull[h - 1]), at(hull[h])));
      steps_.push_back({l, hull[h], at(hull[h]).bytes - at(hull[h - 1]).bytes, last});
    }
  }
  std::stable_sort(steps_.begin(), steps_.end(),
                   [](const Step& a, const Step& b) { return a.gain_per_byte > b.gain_per_byte; });
  path_bytes_.push_back(bytes_of(path(0)));
  for (const Step& step : steps_) path_bytes_.push_back(path_bytes_.back() + step.bytes);
}

double Allocator::cost_of(const Choice& choice) const {
  double cost = 0;
  for (size_t l = 0; l < choice.size(); ++l) cost += layers_[l].candidates[options_[l][choice[l]]].cost;
  return cost;
}

uint64_t Allocator::bytes_of(const Choice& choice) const {
  uint64_t bytes = fixed_;
  for (size_t l = 0; l < choice.size(); ++l) bytes += layers_[l].candidates[options_[l][choice[l]]].bytes;
  return bytes;
}

Allocator::State Allocator::state_of(Choice choice) const {
  State state;
  state.bytes = bytes_of(choice);
  state.cost = cost_of(choice);
  state.choice = std::move(choice);
  return state;
}

Allocator::Choice Allocator::path(size_t steps) const {
  Choice choice(layers_.size(), 0);
  for (size_t i = 0; i < steps; ++i) choice[steps_[i].layer] = steps_[i].to;
  return choice;
}

void Allocator::fill(Choice& choice, uint64_t room, By by) const {
  for (;;) {
    double best = 0;
    size_t layer = 0, to = 0;
    uint64_t used = 0;
    for (size_t l = 0; l < choice.size(); ++l) {
      const Candidate& now = layers_[l].candidates[options_[l][choice[l]]];
      for (size_t o = choice[l] + 1; o < options_[l].size(); ++o) {
        const Candidate& next = layers_[l].candidates[options_[l][o]];
        if (next.bytes - now.bytes > room) break;
        const double worth = by == By::gain ? now.cost - next.cost : slope(now, next);
        if (worth <= best) continue;
        best = worth;
        layer = l;
        to = o;
        used = next.bytes - now.bytes;
      }
    }
    if (best <= 0) return;
    choice[layer] = to;
    room -= used;
  }
}

void Allocator::take_back(Choice& choice, uint64_t excess) const {
  while (excess > 0) {
    double best = std::numeric_limits<double>::infinity();
    size_t layer = 0, to = 0;
    uint64_t freed = 0;
    for (size_t l = 0; l < choice.size(); ++l) {
      const Candidate& now = layers_[l].candidates[options_[l][choice[l]]];
      for (size_t o = choice[l]; o-- > 0;) {
        const Candidate& back = layers_[l].candidates[options_[l][o]];
        const uint64_t less = now.bytes - back.bytes;
        const double loss = (back.cost - now.cost) / static_cast<double>(std::min(less, excess));
        if (loss >= best) continue;
        best = loss;
        layer = l;
        to = o;
        freed = less;
      }
    }
    assert(freed > 0);
    choice[layer] = to;
    excess -= std::min(freed, excess);
  }
}

std::vector<Allocator::State> Allocator::fills(size_t steps) const {
  const Choice low = path(steps), high = path(steps + 1);
  const uint64_t from = path_bytes_[steps], gap = steps_[steps].bytes;
  std::vector<State> found;
  for (uint64_t i = 1; i <= kFillSizes; ++i) {
    const uint64_t room = std::min(gap - 1, gap / kFillSizes * i + gap % kFillSizes * i / kFillSizes);
    for (const By by : {By::gain, By::gain_per_byte}) {
      Choice choice = low;
      fill(choice, room, by);
      found.push_back(state_of(std::move(choice)));
    }
    Choice choice = high;
    take_back(choice, gap - room);
    fill(choice, from + room - bytes_of(choice), By::gain_per_byte);
    found.push_back(state_of(std::move(choice)));
  }
  std::stable_sort(found.begin(), found.end(), [](const State& a, const State& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost;
  });
  return found;
}

template <class GoOn>
Allocator::State Allocator::chain(size_t steps, GoOn go_on) const {
  State state = state_of(path(steps));
  if (steps == steps_.size()) return state;
  const uint64_t end = path_bytes_[steps + 1];
  const std::vector<State> found = fills(steps);
  auto next_found = found.begin();
  for (;;) {
    // The smallest upgrade: before it fits, nothing else does.
    std::optional<State> next;
    uint64_t least = end - state.bytes;
    double gain = 0;
    size_t layer = 0, to = 0;
    for (size_t l = 0; l < layers_.size(); ++l) {
      if (state.choice[l] + 1 == options_[l].size()) continue;
      const Candidate& now = layers_[l].candidates[options_[l][state.choice[l]]];
      const Candidate& up = layers_[l].candidates[options_[l][state.choice[l] + 1]];
      const uint64_t more = up.bytes - now.bytes;
      if (more > least || (more == least && now.cost - up.cost <= gain)) continue;
      least = more;
      gain = now.cost - up.cost;
      layer = l;
      to = state.choice[l] + 1;
    }
    if (gain > 0 && least < end - state.bytes) {
      Choice choice = state.choice;
      choice[layer] = to;
      next = state_of(std::move(choice));
    }
    while (next_found != found.end() && (next_found->bytes <= state.bytes || next_found->cost >= state.cost) &&
           (!next || next_found->bytes <= next->bytes))
      ++next_found;
    const bool take_found = next_found != found.end() && next_found->cost < state.cost &&
                            (!next || next_found->bytes < next->bytes ||
                             (next_found->bytes == next->bytes && next_found->cost < next->cost));
    if (take_found) next = *next_found;
    if (!next || !go_on(*next)) return state;
    state = std::move(*next);
  }
}

Allocation Allocator::finished(const State& state) const {
  Allocation result{{}, state.bytes, state.cost};
  for (size_t l = 0; l < layers_.size(); ++l) result.choice.push_back(options_[l][state.choice[l]]);
  return result;
}

Allocation Allocator::for_bytes(uint64_t target) const {
  if (target < least_bytes())
    throw Error({.name = "budget-too-small",
                 .problem = "even the smallest choice of formats is larger than the budget",
                 .expected = fmt::format("at least {} bytes", least_bytes()),
                 .found = fmt::format("{} bytes", target),
                 .advice = "Raise the budget, or let --formats have smaller ones."});
  const auto after = std::upper_bound(path_bytes_.begin(), path_bytes_.end(), target);
  const auto steps = static_cast<size_t>(after - path_bytes_.begin()) - 1;
  return finished(chain(steps, [&](const State& next) { return next.bytes <= target; }));
}

Allocation Allocator::for_cost(double most) const {
  size_t steps = 0;
  for (Choice choice = path(0); cost_of(choice) > most; ++steps) {
    if (steps == steps_.size())
      throw Error({.name = "budget-too-strict",
                   .problem = "the best choice of formats still has a larger error",
                   .expected = fmt::format("a cost of at least {:.3g}", least_cost()),
                   .found = fmt::format("{:.3g}", most),
                   .advice = "Allow more error, or let --formats have more exact ones (bf16)."});
    choice[steps_[steps].layer] = steps_[steps].to;
  }
  if (steps == 0) return finished(state_of(path(0)));
  // Up to and including the first state that is cheap enough.
  bool reached = false;
  const State last = chain(steps - 1, [&](const State& next) {
    if (reached) return false;
    reached = next.cost <= most;
    return true;
  });
  return finished(reached ? last : state_of(path(steps)));
}

}  // namespace mezzotint::convert
