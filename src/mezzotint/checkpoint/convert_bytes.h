#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "mezzotint/io/tensor_info.h"

namespace mezzotint::checkpoint {

/// Turns the bytes of a parameter into the dtype that a layout stores it in. Float dtypes are converted by value
/// (F64, F16, BF16 <-> F32); bytes of equal width that only differ in their name (U8, I8, F8_*) keep their bits, as the
/// loaders view them. Throws Error "parameter-dtype" for anything else.
std::vector<std::byte> convert_bytes(std::vector<std::byte> bytes, const io::TensorInfo& from, DType to,
                                     const std::string& file);

}  // namespace mezzotint::checkpoint
