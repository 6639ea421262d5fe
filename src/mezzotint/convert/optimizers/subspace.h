#pragma once
#include <cstdint>

#include "mezzotint/convert/optimizers/hessian.h"

namespace mezzotint::convert {

/// H becomes V V', V an orthonormal basis of (nearly) its `rank` leading eigenvectors, found by subspace iteration from
/// a fixed start (Halko, Martinsson & Tropp 2011, algorithm 4.4: 10 vectors more than asked for, 4 iterations). Needs
/// 2 * n * (rank + 10) floats.
void project_on_leading_eigenvectors(LowerTiles& h, int64_t rank, TileBuffers& buffers);

}  // namespace mezzotint::convert
