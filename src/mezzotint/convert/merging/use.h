#pragma once
#include <cstddef>
#include <map>

#include "mezzotint/convert/plan.h"

/// A step of make_plan, and what the steps for other adapters share with it (room-internal).
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

/// Rows of a plan by the tensor of the source that they are made of.
std::map<size_t, size_t> rows_by_tensor(const Plan& plan);

/// Throws Error "merge-memory" where the smallest tile of a row, with what adapters change together, exceeds
/// max_memory.
void require_memory(const Plan& plan, const checkpoint::Model& model, const PlanRow& row);

}  // namespace mezzotint::convert
