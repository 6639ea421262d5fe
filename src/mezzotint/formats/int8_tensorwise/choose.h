#pragma once
#include "mezzotint/formats/format.h"

/// Choosing the scales of int8_tensorwise. Per row: absmax in one fused pass, from effort 2 a search of every row. One
/// scale for the whole weight: absmax, from effort 1 two more passes, over the errors of smaller scales and over the
/// least-squares fit of the best.
namespace mezzotint::formats::int8_tensorwise {

ChoosePlan choose_plan(const Layout& layout, const ChooseOptions& choose);
bool observe(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
             Parameters& parameters);
void finish(const Layout& layout, const ChooseOptions& choose, int pass, float* stats, Parameters& parameters);

}  // namespace mezzotint::formats::int8_tensorwise
