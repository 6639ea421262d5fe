#pragma once
#include "mezzotint/convert/plan.h"

/// A step of make_plan (room-internal).
namespace mezzotint::convert {

/// Matches the adapters of the options with the model and gives every row that one changes its patches. What was to be
/// copied or to keep its codes is encoded: floats into their own dtype, a quantized layer into its own layout. Throws
/// Error
///   "bad-option"         options that need adapters or a quantized model, without these
///   "merge-unwritable"   a layer's format can be read but not written
///   "merge-unsupported"  what an adapter asks for cannot be stored in the layer's format
///   "merge-memory"       what has to be merged in one piece does not fit max_memory
///   "no-original"        merge_original has no such float tensor
/// and those of Merge.
void use_adapters(Plan& plan, const checkpoint::Model& model);

}  // namespace mezzotint::convert
