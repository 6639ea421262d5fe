#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "mezzotint/io/writer.h"

/// Values that trouble a quantizer the way trained weights do.
namespace mezzotint::synth {

/// Writes elements [first, first + count) of a tensor, row-major, little-endian, into `out`.
///
/// Matrices (rank >= 2; rows = shape[0]): Student t with 6 degrees of freedom, standard deviation about 0.02; row
/// scales log-normal with sigma 0.3; about one column in 1024 times 3 to 8; plus a rank-2 part a quarter as large.
/// Vectors: near 1 where they are the weight or scale of a norm, small and normal where not. int64: the index in the
/// last dimension. int8 and uint8: uniform bytes.
///
/// An element depends on nothing but (seed, name, shape, its index): the bytes are the same however the tensor is cut.
/// Throws Error "synth-dtype" for other dtypes than F32, F16, BF16, I64, I8, U8.
void fill(const io::TensorSpec& tensor, uint64_t seed, uint64_t first, uint64_t count, std::byte* out);

/// Whether fill() makes the vector's values near 1: the weight or scale of a norm.
bool is_norm_vector(std::string_view name, size_t rank);

}  // namespace mezzotint::synth
