#pragma once
#include <vector>

#include "mezzotint/convert/budget/budget.h"
#include "mezzotint/convert/budget/candidates.h"
#include "mezzotint/convert/budget/measure.h"

namespace mezzotint::convert {

/// What every format of every layer costs.
struct Costs {
  std::vector<std::vector<QuantizationError>> errors;  ///< by layer and format of FormatLayer; zero for exact ones
  std::vector<double> weights;                         ///< by layer: what a squared relative error is multiplied by
  bool calibrated = false;                             ///< of any layer

  double relative_error(size_t layer, size_t format) const;
  /// Weight times the squared relative error: of the layer's output where it is calibrated, of its weight elsewhere.
  double cost(size_t layer, size_t format) const;
  double total_weight() const;
};

/// About a million elements of every layer, in at most so many rows, at least two runs of rows that formats take.
inline constexpr int64_t kSampleElements = 1 << 20;
inline constexpr int64_t kSampleRows = 256;

/// Measures the formats that `wanted(layer, format)` names; the others stay zero. `whole` = all rows. Throws Error
/// "bad-calibration" where a layer's moments do not have its width.
Costs measure_costs(const checkpoint::Model& model, const std::vector<FormatLayer>& layers,
                    const ConvertOptions& options, bool whole,
                    const std::function<bool(size_t layer, size_t format)>& wanted, const BudgetRun& run);

}  // namespace mezzotint::convert
