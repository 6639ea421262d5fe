#pragma once
#include <span>

#include "mezzotint/convert/compare.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/measured_layer.h"
#include "mezzotint/convert/plan.h"
#include "mezzotint/convert/report/report.h"

namespace mezzotint::convert {

/// Of a conversion. `measured` may come in any order; rows that it lacks count as unmeasured where they were written
/// in another way. The caller adds: cpu, made, frontier, and its own command line if it prefers that.
Report make_report(const Plan& plan, const Outcome& outcome, std::span<const MeasuredLayer> measured);

/// Of a comparison: `b` is the output. The caller adds: cpu, made, times. The recipe is that of b's header; tensors
/// that are in one file only are warnings.
Report make_report(const Comparison& comparison, const checkpoint::Model& a, const checkpoint::Model& b);

}  // namespace mezzotint::convert
