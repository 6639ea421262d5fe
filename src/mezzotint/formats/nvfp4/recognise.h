#pragma once
#include "mezzotint/formats/format.h"

/// Room-internal pieces of the folder nvfp4.
namespace mezzotint::formats::nvfp4 {

constexpr int64_t kAlignment = 16;  ///< of rows and columns of the stored codes

Description describe(const LayerFacts& facts, const Options& options);
Recognition recognise(const StoredLayer& layer);

}  // namespace mezzotint::formats::nvfp4
