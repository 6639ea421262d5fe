#pragma once
#include <optional>
#include <vector>

#include "mezzotint/adapter/stack.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/optimizers/objective.h"

/// Rounding that keeps small deltas. An adapter that changes a quantized weight by less than half a step of its codes
/// would be rounded away. It reads its inputs through its down factors, so errors within their row space are what it
/// would be missed by: H = 30 P + I, P the projector on that space (algorithms.md section 3).
namespace mezzotint::convert {

/// Nothing where the merged tensor has no such factors, or none over the layout's columns.
std::optional<ObjectiveOptions> merge_objective(const MergedTensor& tensor, const formats::Layout& layout);

/// An orthonormal basis [rank, layout.cols] of the row space of the down factors, as the stored weight sees its inputs:
/// multiplied by `input_factors` (or empty) and rotated as the layout is. Extends `basis`.
std::vector<float> merge_input_basis(const adapter::Stack& stack, const formats::Layout& layout,
                                     const std::vector<float>& input_factors, std::vector<float> basis = {});
/// The objective that such a basis alone makes.
ObjectiveOptions basis_objective();

}  // namespace mezzotint::convert
