#pragma once
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "mezzotint/io/tensor_info.h"

namespace mezzotint::nn {

/// What stands in front of a module's names in a file: the prefix under which most of `names` are found, "" where none
/// is. Where two components of a file have equally many, the one that convert::detect() takes for the model. Throws
/// Error "ambiguous-prefix" where that is neither.
std::string find_prefix(std::span<const io::TensorInfo> tensors, const std::set<std::string, std::less<>>& names);

}  // namespace mezzotint::nn
