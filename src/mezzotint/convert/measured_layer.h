#pragma once
#include <optional>
#include <string>

#include "mezzotint/convert/report/meter.h"

namespace mezzotint::convert {

/// What the pipeline saw of one row of a plan.
struct MeasuredLayer {
  std::string name;  ///< PlanRow::name
  MeasuredErrors errors;
  std::string optimizer;                  ///< "plain", "search", ...; "" = not known
  std::optional<double> objective_ratio;  ///< objective after the optimizer / of plain rounding
  std::string note;                       ///< further reason; the row's own comes first
  double seconds = 0;                     ///< of all cores together
};

}  // namespace mezzotint::convert
