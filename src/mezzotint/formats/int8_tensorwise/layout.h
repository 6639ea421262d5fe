#pragma once
#include <optional>

#include "mezzotint/formats/format.h"

/// Shapes and options of int8_tensorwise.
namespace mezzotint::formats::int8_tensorwise {

inline constexpr std::string_view kScaling = "scaling";
inline constexpr std::string_view kConvrot = "convrot";
inline constexpr std::string_view kGroupsize = "convrot_groupsize";
inline constexpr int64_t kDefaultGroupsize = 256;

bool by_row(const Layout& layout);

/// A layout whose options say what is really stored: `group` is 0 where nothing is rotated.
Layout layout_of(const LayerFacts& facts, bool by_row, int64_t group);

Description describe(const LayerFacts& facts, const Options& options);

/// Multiplies every group of columns by the Hadamard matrix of ConvRot, or, for powers of two that are none of 4, by
/// Sylvester's: that is what convert_to_quant stores for those. Its own inverse.
void transform(const Layout& layout, float* rows, int64_t count, bool inverse);

Recognition recognise(const StoredLayer& layer);

}  // namespace mezzotint::formats::int8_tensorwise
