#pragma once
#include <cstdint>

#include "mezzotint/convert/plan.h"

/// Steps of make_plan (room-internal) for adapters that a conversion does not merge, but prepares its output for.
namespace mezzotint::convert {

/// Matches ConvertOptions::scale_loras with the model. Scales of layers that these change are then chosen for the
/// weight alone, for the weight with all of them, and with each of them (extremes.h); codes are those of the weight
/// alone. Of additive adapters every strength from 0 to the given one lies between. An adapter that is merged into such
/// a layer later, with the scales left as they are, clips nothing. Layers that keep their codes keep their scales.
/// Throws Error
///   "bad-option"    no layer that the adapters change gets scales
///   "merge-memory"  what an adapter changes in one piece does not fit max_memory
/// and those of Merge.
void use_scale_adapters(Plan& plan, const checkpoint::Model& model);

/// Matches ConvertOptions::calibration_loras with the model, and lets rounding spare the inputs that their down factors
/// read. Where a row's method has an H, it gets kInputWeight of the projector P on that space, at a mean diagonal of 1;
/// where it rounds each weight to its nearest code, it gets H = 30 P + I, as merging has (merging/feedback.h). Throws
/// Error "bad-option" where methods were asked for that leave nothing to spare, or where no layer can, and those of
/// Merge.
void use_input_adapters(Plan& plan, const checkpoint::Model& model);

inline constexpr double kInputWeight = 10;

/// Most vectors of the basis that a row is rounded by.
int64_t basis_rank(const PlanRow& row);

}  // namespace mezzotint::convert
