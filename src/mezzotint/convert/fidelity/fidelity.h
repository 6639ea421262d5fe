#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/options.h"
#include "mezzotint/convert/report/report.h"

/// How much of an adapter is left in a model that it was merged into: rounding to a quantized format loses deltas that
/// are smaller than a step of its codes (algorithms.md section 3).
namespace mezzotint::convert {

struct FidelityOptions {
  std::vector<MergeLora> loras;
  bool dampen = true;   ///< as the merge did it: the n-th adapter with 0.9^(n-1) of its strength
  bool strict = false;  ///< everything in the adapters has to have a place
  int threads = 0;      ///< 0 = all cores; no bit depends on it
  std::function<void(uint64_t done, uint64_t total)> progress;
};

/// One tensor that adapters change. D is what they do to the base's (decoded) weight W, D = apply(W) - W, and E what
/// the other model's differs by, E = W_out - W.
struct TensorFidelity {
  std::string name;      ///< of the tensor, a weight without ".weight"
  std::string from, to;  ///< format label or dtype in the base and in the output
  Shape shape;
  size_t patches = 0;
  double delta = 0;         ///< ||D|| / ||W||
  double gain = 0;          ///< <E, D> / ||D||^2: 1 = the whole adapter is in it, 0 = nothing of it
  double residual = 0;      ///< ||E - D|| / ||D||: 0 = nothing else happened to it
  uint64_t non_finite = 0;  ///< elements left out of the sums
  std::string reason;       ///< why nothing was measured, or ""

  bool measured() const { return reason.empty(); }
  bool vanished() const;
};

struct Fidelity {
  std::vector<TensorFidelity> tensors;  ///< those measured first, lowest gain first
  double gain = 0, residual = 0;        ///< of all that were measured, as one long vector
  size_t measured = 0, vanished = 0;
  std::vector<std::string> notes, warnings;
};

/// Below this gain an adapter counts as lost.
inline constexpr double kVanishedGain = 0.5;
/// What to do then.
inline constexpr std::string_view kVanishedAdvice =
    "load the adapter beside the quantized model instead (bypass), merge with `--from` the original weights, or with "
    "`--rounding feedback`";

/// Streams both models by runs of rows, a few MiB for every thread, besides the factors of one tensor; only an adapter
/// whose rows depend on one another, or that enlarges its weight, needs that weight whole. Throws Error "bad-option"
/// without adapters and those of Merge.
Fidelity measure_fidelity(const checkpoint::Model& base, const checkpoint::Model& output,
                          const FidelityOptions& options);

/// Puts it into the report of the comparison of these models: a note of every layer, and a warning with the names of
/// those whose adapters are lost.
void add_fidelity(Report& report, const Fidelity& fidelity);

}  // namespace mezzotint::convert
