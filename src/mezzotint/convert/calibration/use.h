#pragma once
#include "mezzotint/convert/plan.h"

/// From statistics to rows of a plan (room-internal; a step of make_plan).
namespace mezzotint::convert {

/// Opens the files of plan.options.calibration, gives every quantized row of the chosen components its statistics and,
/// where its format's loaders read one, an input_scale (instead of one that the source has); records the fingerprint in
/// plan.options and says in notes and warnings what had no match.
///
/// Throws the Errors of Calibration::open, and
///   "bad-option"             --smooth is out of range, without calibration, or with a percentile for input_scale
///   "calibration-needed"     a recipe was made with calibration files, and none are given
///   "calibration-differs"    it was made with others
///   "calibration-unrelated"  no layer of the model has statistics
///   "calibration-ambiguous"  two layers of the model would take the same
void use_calibration(Plan& plan, const checkpoint::Model& model);

}  // namespace mezzotint::convert
