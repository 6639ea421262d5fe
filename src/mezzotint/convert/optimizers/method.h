#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/convert/optimizers/objective.h"
#include "mezzotint/convert/optimizers/subspace_rank.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::convert {

/// What a person can ask for: `--optimizer`.
struct OptimizerName {
  std::string_view name;
  std::string_view summary;  ///< one line for help texts
};
const std::vector<OptimizerName>& optimizer_names();

/// How one layer's scales are chosen and its codes found.
struct Method {
  std::string label;                          ///< "plain", "search", "ldlq", "gptq + 2 sweeps", ...
  int effort = 0;                             ///< of the scales (formats::ChooseOptions)
  bool weighs_columns = false;                ///< by the second moments of the inputs, in the choice of scales
  std::optional<ObjectiveOptions> objective;  ///< rounding with feedback; nothing = each weight to its nearest code
};

/// What X'X / T of so many tokens is damped by, as a multiple of its mean diagonal (docs/quality.md).
double damping_of(uint64_t tokens, int64_t cols);

/// `optimizer` is a name of the list or "" for what the effort stands for: 0 plain, 1 search (what costs little), 2
/// ldlq, 3 ldlq and coordinate descent. `statistics` (may be null) are those of the layer's inputs, `rank` is that of
/// "learned". Throws Error
/// "bad-option" for unknown names.
Method choose_method(std::string_view optimizer, int effort, const formats::Layout& layout,
                     const LayerStatistics* statistics, const SubspaceRank& rank = {});

}  // namespace mezzotint::convert
