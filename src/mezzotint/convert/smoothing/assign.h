#pragma once
#include <cstddef>
#include <span>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/plan.h"

namespace mezzotint::convert {

/// Decides for `rows` of quantized layers, whose statistics are known, whether their inputs are smoothed and who takes
/// over the factors: what loads the file, where the format has a place for them, or else the norm in front. Says why
/// where neither is possible.
void assign_smoothing(Plan& plan, const checkpoint::Model& model, std::span<const size_t> rows);

}  // namespace mezzotint::convert
