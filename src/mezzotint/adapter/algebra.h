#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/adapter/tensor.h"

/// Small algebra that several algorithms share (room-internal).
namespace mezzotint::adapter {

/// a * b as matrices (tensor.h): [m, n] of a [m, k] and b [k, n].
Tensor multiply(const Tensor& a, const Tensor& b);

/// A Tucker core folded into what stands behind it: result [r, n * K] with
/// result[i, q, k] = sum_j core[i, j, k] * down[j, q], for a core [r, s, *kernel] (K positions) and down [s, n, 1...].
Tensor fold_core(const Tensor& core, const Tensor& down);

Tensor transpose(const Tensor& matrix);

/// Why an adapter for a weight of rows x cols does not fit this one; "" where it does.
std::string size_misfit(int64_t rows, int64_t cols, const Shape& weight);

/// Why the part "rescale", if there is one, does not fit the rows of a weight; "" where it does.
std::string rescale_misfit(const Parts& parts, const Shape& weight);

/// rows x cols of an expression "MxN" in messages.
std::string size_text(int64_t rows, int64_t cols);

/// Rotations of the Cayley transform: (I + Q)(I - Q)^-1 with Q = B - B' for every block [b, b] of the last two
/// dimensions. Where 0 < bound < |Q| (Frobenius, over all blocks), Q is shortened to it first. In double, rounded once.
Tensor cayley(const Tensor& blocks, double bound);

/// Multiplies row r by 1 + strength * (factors[r] - 1); does nothing where there are no factors.
void rescale_rows(const Tensor& factors, int64_t row0, int64_t rows, int64_t cols, double strength, float* weight);

}  // namespace mezzotint::adapter
