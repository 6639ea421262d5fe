#pragma once
#include <cstdint>

#include "mezzotint/convert/optimizers/hessian.h"

namespace mezzotint::convert {

/// H becomes V V', V an orthonormal basis of (nearly) its `rank` leading eigenvectors, found by subspace iteration from
/// a fixed start (Halko, Martinsson & Tropp 2011, algorithm 4.4) with 4 iterations and twice as many vectors as asked
/// for, at least 10 more: with few more, flat spectra leave the basis too far from the leading vectors. Needs 2 * n *
/// (2 * rank + 10) floats.
void project_on_leading_eigenvectors(LowerTiles& h, int64_t rank, TileBuffers& buffers);

}  // namespace mezzotint::convert
