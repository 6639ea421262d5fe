#pragma once
#include "mezzotint/formats/format.h"

namespace mezzotint::formats::int8_tensorwise {

inline constexpr std::string_view kScaling = "scaling";

Description describe(const LayerFacts& facts, const Options& options);
Recognition recognise(const StoredLayer& layer);

}  // namespace mezzotint::formats::int8_tensorwise
