#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace mezzotint::convert {

/// V' H V in place for a symmetric H [n, n] of which the lower triangle is given. `rotate` replaces `count` rows of n
/// values by their products with V. Afterwards both triangles are filled.
void rotate_moments(std::vector<float>& h, int64_t n, const std::function<void(float* rows, int64_t count)>& rotate);

}  // namespace mezzotint::convert
