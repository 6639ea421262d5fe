#pragma once
#include "mezzotint/formats/format.h"

namespace mezzotint::formats::convrot_w4a4 {

inline constexpr std::string_view kLinearDtype = "linear_dtype";

Description describe(const LayerFacts& facts, const Options& options);
/// A scale of one column, [N, 1], is mended to [N], which is the only shape that ComfyUI's kernels take.
Recognition recognise(const StoredLayer& layer);

}  // namespace mezzotint::formats::convrot_w4a4
