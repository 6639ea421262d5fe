#pragma once
#include <cstdint>

namespace mezzotint::convert {

/// One matrix that stands for several where scales are chosen: of every run of `run` columns of a row that share a
/// scale, it has the smallest and the largest value of them all, and of the others equal shares. So absmax scales of
/// the result are the largest of all matrices', ranges cover all, and a search that sums errors sums them over all.
/// (Where one and the same element has both extremes, in different matrices, the one of larger magnitude stays.)
///
/// Takes up the next matrix: writes to `values` [rows, cols], which stands for `count` matrices, what stands for these
/// and `other`. A value that is not finite gives way to one that is.
void keep_extremes(const float* other, int64_t rows, int64_t cols, int64_t run, int64_t count, float* values);

}  // namespace mezzotint::convert
