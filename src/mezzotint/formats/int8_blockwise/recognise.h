#pragma once
#include "mezzotint/formats/format.h"

namespace mezzotint::formats::int8_blockwise {

inline constexpr std::string_view kBlockSize = "block_size";
inline constexpr std::string_view kGeometry = "geometry";

Description describe(const LayerFacts& facts, const Options& options);
Recognition recognise(const StoredLayer& layer);

}  // namespace mezzotint::formats::int8_blockwise
