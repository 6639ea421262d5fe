#pragma once
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"

/// Parameters that stay in the float type a file has them in, for formats whose loaders want no other.
namespace mezzotint::formats {

/// The values of a parameter of F32, BF16 or F16.
std::vector<float> widened(const Layout& layout, const Parameters& parameters, size_t tensor);

/// Appends the stored tensor `suffix` of the layer to the layout as it is, if it has one of the shapes and F32, BF16 or
/// F16; else says what is wrong with it.
std::string keep_floats(const StoredLayer& layer, std::string_view suffix, const std::vector<Shape>& shapes,
                        Layout& layout);

}  // namespace mezzotint::formats
