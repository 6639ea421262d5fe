#pragma once
#include <cstdint>
#include <span>
#include <vector>

/// SmoothQuant (Xiao et al. 2023): a layer whose input is divided by s and whose weight's columns are multiplied by s
/// computes the same, and outliers of the input become easier to round.
namespace mezzotint::convert {

/// 1 / s for every column, which loaders multiply the input by (pre_quant_scale), with
///
///     s_j = amax|x_j|^alpha / amax|w_j|^(1 - alpha)
///
/// over the geometric mean of all columns, from 2^-12 to 2^12 and rounded to bf16, which every dtype of an input holds
/// exactly: what loaders multiply by is what the weight was divided by. (Powers of two, by which inputs would be
/// multiplied exactly, too, cost 5 % of the output's error.) 1 where an input or its column is all zeros or not known.
std::vector<float> smoothing_factors(std::span<const float> input_amax, std::span<const float> weight_amax,
                                     double alpha);

/// X'X of inputs that were multiplied by `factors`: rows [row0, row0 + rows) of a lower triangle, factors.size() floats
/// apart.
void smooth_moments(std::span<const float> factors, int64_t row0, int64_t rows, float* moments);

}  // namespace mezzotint::convert
