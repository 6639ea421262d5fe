#pragma once
#include <cstddef>
#include <string_view>

namespace mezzotint {

/// Levenshtein distance in bytes: for suggestions after a typing error.
size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace mezzotint
