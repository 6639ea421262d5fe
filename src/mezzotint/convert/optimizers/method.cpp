#include "mezzotint/convert/optimizers/method.h"

#include <fmt/format.h>

#include <algorithm>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {
namespace {

// Wider layers are cut at effort 2: the Hessian of 14336 inputs alone takes longer than the rest of its block.
constexpr int64_t kWide = 8192, kSegment = 4096;
constexpr int kSweeps = 2;
// algorithms.md 6.2 and 6.4; the others by docs/quality.md. Sweeps follow the guess further than LDLQ does.
constexpr double kDampingProxy = 0.3, kDampingSwept = 1.0, kDampingSubspace = 0.01;

// Scales with the least squared error clip the largest weights. With 8-bit codes that gains a few percent of an error
// that is small anyway, and makes the model's output much worse (docs/quality.md): only who asks for it gets it.
bool gains_by_search(const formats::Layout& layout) {
  return layout.row_bytes < layout.cols;
}

// Few bits with one scale for whole rows: the best such scale shrinks the row, and all rows alike. That lowers the
// error of each layer and raises the model's, unless feedback follows and takes the shrinking back.
bool shrinks_by_search(const formats::Layout& layout) {
  return layout.block_cols == 0;
}

}  // namespace

// More tokens, less noise.
double damping_of(uint64_t tokens, int64_t cols) {
  const auto inputs = static_cast<uint64_t>(cols);
  return tokens >= 8 * inputs ? 0.003 : tokens >= 2 * inputs ? 0.01 : 0.05;
}

const std::vector<OptimizerName>& optimizer_names() {
  static const std::vector<OptimizerName> names = {
      {"plain", "absmax scales, each weight to its nearest code"},
      {"search", "scales with the least squared error, each weight to its nearest code"},
      {"ldlq", "rounding with error feedback; what matters is guessed from the weights, or known from --calibration"},
      {"gptq", "another name of ldlq, which is the same thing computed with one factor and no inverse"},
      {"quip",
       "ldlq, and for every row a second attempt by way of a random rotation of both sides; the better stays. The file "
       "cannot hold the rotation, so the gain is small: output errors 0 to 3 % below ldlq's in small layers, none at "
       "1024 x 1024, for 2 to 4 times the time"},
      {"learned",
       "the objective of learned rounding (error within the leading singular vectors), solved by ldlq and coordinate "
       "descent"}};
  return names;
}

Method choose_method(std::string_view optimizer, int effort, const formats::Layout& layout,
                     const LayerStatistics* statistics, const SubspaceRank& rank) {
  if (optimizer.empty())
    optimizer = effort >= 2                                                            ? "ldlq"
                : effort == 1 && gains_by_search(layout) && !shrinks_by_search(layout) ? "search"
                                                                                       : "plain";
  else if (std::none_of(optimizer_names().begin(), optimizer_names().end(),
                        [&](const OptimizerName& entry) { return entry.name == optimizer; }))
    throw Error({.name = "bad-option",
                 .problem = fmt::format("there is no optimizer '{}'", optimizer),
                 .advice = "The names: plain, search, ldlq, gptq, quip, learned."});
  Method method;
  method.label = std::string(optimizer);
  if (!layout.format->quantized) return {.label = "plain"};
  if (optimizer == "plain") return method;
  // With X'X the feedback finds what matters by itself, and weighted scales are no better.
  const bool known = statistics != nullptr && optimizer != "learned";
  method.weighs_columns = known && !layout.transformed && (optimizer == "search" || !statistics->has_gram);
  if (optimizer == "search") {
    method.effort = std::clamp(effort, 1, 2);
    return method;
  }
  method.effort = gains_by_search(layout) ? 2 : 0;
  ObjectiveOptions objective;
  if (optimizer == "learned") {
    objective.moments = Moments::subspace;
    objective.subspace = rank.of(layout.rows, layout.cols);
    objective.damping = kDampingSubspace;
    objective.sweeps = kSweeps;
  } else if (statistics != nullptr && statistics->has_gram) {
    objective.moments = Moments::inputs;
    objective.damping = damping_of(statistics->tokens, layout.cols);
    method.label += ", calibrated";
  } else {
    objective.moments = Moments::weights;
    objective.damping = effort >= 3 ? kDampingSwept : kDampingProxy;
  }
  if (effort >= 3 && optimizer != "learned") {
    objective.sweeps = kSweeps;
    method.label += fmt::format(" + {} sweeps", kSweeps);
  }
  if (optimizer == "quip") objective.signs = 0;  // choose_methods knows the seed
  if (effort < 3 && layout.cols > kWide) objective.segment = kSegment;
  method.objective = objective;
  return method;
}

}  // namespace mezzotint::convert
